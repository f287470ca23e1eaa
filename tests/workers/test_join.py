"""What a machine that would join a run is told, when it cannot."""

import logging
import os
import re
import shutil
import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from shunt.dataset.rendering import renderer_for
from shunt.demo_model.tiny_llama import tiny_llama
from shunt.errors import EngineDied
from shunt.job.job import Job
from shunt.run.prepare import prepare
from shunt.store.opening import open_store
from workers.engine.protocol import Engine
from workers.join import main, own_name


def prepared(directory: Path, engine_kind: str = "vllm") -> str:
    """A run of a tiny model at `directory/model`; its store is `directory/runs`."""
    small = {"layers": 1, "heads": 1, "kv_heads": 1, "hidden": 32}
    tiny_llama(directory / "model", **small, tie=True, seed=0)
    (directory / "in.jsonl").write_text('{"prompt": "a"}\n')
    sections = {"input": {"path": str(directory / "in.jsonl")}, "fleet": {"kind": "joined"}}
    model = {"path": str(directory / "model"), "engine_kind": engine_kind}
    job = Job.model_validate({"name": "small", "model": model, **sections})
    renderer = renderer_for("fake", revision=None, max_model_len=None, fake=True)
    store = open_store(str(directory / "runs"))
    return prepare(job, store, renderer, now=datetime(2026, 1, 1, tzinfo=UTC)).run_id


def join(directory: Path, run_id: str) -> int:
    return main([run_id, "--store", str(directory / "runs")])


def test_a_machine_without_the_model_cannot_join(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_id = prepared(tmp_path)
    shutil.rmtree(tmp_path / "model")
    assert join(tmp_path, run_id) == 78
    assert "this machine does not have the model of the run" in caplog.text


def test_a_machine_with_another_model_cannot_join(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_id = prepared(tmp_path)
    weights = next((tmp_path / "model").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-4] + b"\1\2\3\4")
    assert join(tmp_path, run_id) == 78
    assert "is not the one with which its rows were begun" in caplog.text


def test_an_engine_that_does_not_start_is_told_in_a_sentence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_engine(*_arguments: object) -> Engine:
        raise EngineDied("the card has no memory left:\n  0 of 24 GB")

    monkeypatch.setattr("workers.setup._fake_engine", no_engine)
    run_id = prepared(tmp_path, engine_kind="fake")
    with caplog.at_level(logging.INFO, "workers.join"):
        assert join(tmp_path, run_id) == 1
    told = "because it failed: the card has no memory left: 0 of 24 GB"
    assert f"left run {run_id} {told}" in caplog.text


def test_names_are_of_the_machine_and_of_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "gpu_7.cluster.example")
    names = {own_name() for _ in range(3)}
    assert len(names) == 3
    assert all(re.fullmatch(r"gpu-7-cluster-example-[0-9a-f]{6}", name) for name in names)


@pytest.fixture(autouse=True)
def _own_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The command configures logging, handlers of signals and engines for the whole process."""
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    monkeypatch.setattr("os.environ", dict(os.environ))
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)
