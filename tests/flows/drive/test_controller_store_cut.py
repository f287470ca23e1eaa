"""A controller that cannot reach the store for a while: it waits, as its workers do."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from flows.drive.drive import Ending, drive
from flows.prefect.generate import Headless
from flows.surroundings import Surroundings, surroundings
from shunt.job.job import Job
from shunt.run.event import Event, EventKind
from shunt.run.status import StatusReader
from shunt.store.directory import DirectoryStore
from shunt.store.errors import StoreDenied, StoreError, StoreUnavailable
from tests.flows.conftest import lay_out, wait_until


class ControllersStore(DirectoryStore):
    """The controller's way to the store. The workers have one of their own."""

    error: StoreError | None = None
    refused = 0

    def get(self, key: str) -> bytes:
        self._check()
        return super().get(key)

    def list(self, prefix: str) -> Iterator[str]:
        self._check()
        return super().list(prefix)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        self._check()
        return super().put_if_absent(key, data)

    def _check(self) -> None:
        if self.error is not None:
            self.refused += 1
            raise self.error


class Told(Headless):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def happened(self, event: Event) -> None:
        self.events.append(event)


def cut_drive(
    directory: Path, error: StoreError, patience_s: float, until: Callable[[int], bool]
) -> tuple[Ending | BaseException, Told, DirectoryStore]:
    """Drive a job whose controller gets `error` once a worker works, until they have ended
    (`until` gets the number of living ones)."""
    lay_out(directory, tokens_per_s=60)
    job = Job.model_validate(yaml.safe_load((directory / "job.yaml").read_text()))
    store, told = ControllersStore(directory / "runs"), Told()
    own = surroundings(job, threading.Event())
    around = Surroundings(
        environment=own.environment,
        worker_python=own.worker_python,
        log_directory=directory / "logs",
        now=own.now,
        monotonic=own.monotonic,
        stop=own.stop,
        store_patience_s=patience_s,
    )
    driving = ThreadPoolExecutor(1).submit(drive, job, store, around, told)
    reader = DirectoryStore(directory / "runs")
    (run_id,) = _run_ids(directory)
    wait_until(lambda: driving.done() or StatusReader(reader, run_id).read().living)
    assert not driving.done(), driving.exception() or driving.result()
    store.error = error

    def is_over() -> bool:
        living = len(StatusReader(reader, run_id).read().living)
        return driving.done() or (until(living) and store.refused > 3)

    wait_until(is_over)
    store.error = None
    return driving.exception(60.0) or driving.result(), told, reader


def _run_ids(directory: Path) -> list[str]:
    wait_until(lambda: list(directory.glob("runs/runs/*/manifest.json")))
    return [path.parent.name for path in directory.glob("runs/runs/*/manifest.json")]


@pytest.mark.parametrize("error", [StoreUnavailable("away"), StoreDenied("login has lapsed")])
def test_a_store_that_is_away_for_a_while_costs_no_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: StoreError
) -> None:
    monkeypatch.chdir(tmp_path)
    ending, told, _ = cut_drive(tmp_path, error, 60.0, lambda living: living == 0)
    assert isinstance(ending, Ending), ending
    assert ending.code == 0
    assert ending.num_lost == 0
    said = [event.detail for event in told.events if event.kind is EventKind.STORE_AWAY]
    assert len(said) == 2, said
    assert "has not been reached since 20" in said[0]
    assert "answers again" in said[1]


def test_patience_ends_and_says_since_when(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    error = StoreUnavailable("away")
    ending, _, reader = cut_drive(tmp_path, error, 1.0, lambda _living: False)
    assert isinstance(ending, StoreUnavailable)
    assert "away; the store has not been reached since 20" in str(ending)
    (run_id,) = _run_ids(tmp_path)
    assert StatusReader(reader, run_id).read().living == []
