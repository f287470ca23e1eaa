"""A job that names a pipeline: `python -m workers` runs it, its second slot included."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from shunt.dataset.rendering import renderer_for
from shunt.job.job import EngineOptions, Input, Job, Model, Output
from shunt.plan.plan import Pipeline
from shunt.run.collect import collect, reading_outcomes
from shunt.run.event import Event, EventKind, read_events
from shunt.run.prepare import prepare
from shunt.store.config import StoreConfig
from shunt.store.opening import open_store
from shunt.testing.processes import descendants
from tests.workers.pipeline.holding import assert_nothing_kept, until_gone
from tests.workers.pipeline.processes import Told, assert_same, environment, scratch
from tests.workers.pipeline.running import pipeline_of, requests

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1200)]

CONTEXT_TOKENS = 256
WORKER_LIMIT_S = 500.0


def test_a_job_with_a_pipeline_gives_the_rows_of_one_rank(
    model: str, one_rank: Told, tmp_path: Path
) -> None:
    """And the timeline tells that the cache is not as large as the plan said."""
    pipeline = pipeline_of([1, 2], [2, 4], [0, 1]).model_copy(update={"predicted_kv_tokens": 1000})
    run = _Run(model, pipeline, tmp_path)
    assert run.worker.wait(WORKER_LIMIT_S) == 0
    assert_same(one_rank, run.told())
    events: dict[str, Event] = {}
    read_events(run.store, run.manifest.run_id, into=events)
    (told,) = [e.detail for e in events.values() if e.kind is EventKind.UNLIKE_PLAN]
    assert "the plan counted on 1000" in told
    assert_nothing_kept()


@pytest.mark.soak
def test_the_pipelines_of_two_jobs_do_not_meet(model: str, one_rank: Told, tmp_path: Path) -> None:
    """They start at once on one machine: each has link, rendezvous and memory of its own."""
    runs = []
    for name, tp in (("a", [1, 2]), ("b", [2, 1])):
        (tmp_path / name).mkdir()
        runs.append(_Run(model, pipeline_of(tp, [3, 3], [0, 1]), tmp_path / name))
    assert [run.worker.wait(2 * WORKER_LIMIT_S) for run in runs] == [0, 0]
    for run in runs:
        assert_same(one_rank, run.told())
    assert_nothing_kept()


@pytest.mark.soak
def test_a_job_outlives_its_follower(model: str, one_rank: Told, tmp_path: Path) -> None:
    """Killed while its rank starts: the next launch, with another follower, does the work."""
    run = _Run(model, pipeline_of([1, 1], [4, 2], [0, 1]), tmp_path)
    os.kill(_follower_with_rank(run.worker.pid), signal.SIGKILL)
    assert run.worker.wait(WORKER_LIMIT_S) == 0
    assert_same(one_rank, run.told())
    assert_nothing_kept()


@pytest.mark.soak
def test_a_killed_worker_takes_its_followers_along(model: str, tmp_path: Path) -> None:
    run = _Run(model, pipeline_of([1, 1], [4, 2], [0, 1]), tmp_path)
    _follower_with_rank(run.worker.pid)
    family = descendants(run.worker.pid)
    run.worker.kill()
    run.worker.wait()
    assert not until_gone(family)
    assert_nothing_kept()


def _follower_with_rank(worker: int) -> int:
    deadline = time.monotonic() + WORKER_LIMIT_S
    while time.monotonic() < deadline:
        for pid in descendants(worker):
            with suppress(OSError):
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
                if b"\0workers.pipeline\0" in command and len(descendants(pid)) > 1:
                    return pid  # a janitor, and a rank
        time.sleep(0.05)
    raise AssertionError("no follower")


class _Run:
    """A prepared job, and the worker that runs it."""

    def __init__(self, model: str, pipeline: Pipeline, directory: Path) -> None:
        job = _job(model, pipeline, directory)
        self.store = open_store(job.store.uri)
        renderer = renderer_for(model, revision=None, max_model_len=CONTEXT_TOKENS, fake=False)
        self.manifest = prepare(job, self.store, renderer, now=datetime.now(UTC))
        told_store = json.dumps(job.store.model_dump(exclude_none=True))
        self.worker = subprocess.Popen(
            [
                *(sys.executable, "-m", "workers"),
                *("--store", told_store, "--run", self.manifest.run_id),
            ],
            env=environment(),
            cwd=scratch(),
        )

    def told(self) -> Told:
        summary = collect(self.store, self.manifest, now=datetime.now(UTC))
        with reading_outcomes(self.store, self.manifest, summary.cuts) as outcomes:
            made = [o.generations[0] for shard in outcomes() for o in shard.outcomes]
        return Told(made, [])


def _job(model: str, pipeline: Pipeline, directory: Path) -> Job:
    work = requests(max_tokens=24)
    lines = [json.dumps({"token_ids": list(request.prompt_token_ids)}) for request in work]
    (directory / "prompts.jsonl").write_text("\n".join(lines))
    return Job(
        name="pipeline",
        model=Model(
            path=model,
            dtype="float32",
            max_model_len_tokens=CONTEXT_TOKENS,
            engine=EngineOptions(pipeline=pipeline, enforce_eager=True, max_num_batched_tokens=32),
        ),
        input=Input(path=str(directory / "prompts.jsonl")),
        output=Output(path=str(directory / "results")),
        sampling=work[0].sampling,
        store=StoreConfig(uri=str(directory / "store")),
    )
