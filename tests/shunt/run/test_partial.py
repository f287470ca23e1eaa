"""What is finished of a run, written while the rest is open, and never taken for all of it."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from shunt import keys
from shunt.checkpoint.generation import Finish, Generation
from shunt.checkpoint.lease import LeaseObserver
from shunt.checkpoint.log import CheckpointLog
from shunt.checkpoint.progress import replay
from shunt.checkpoint.segment import Gain
from shunt.dataset.rendering import renderer_for
from shunt.job.job import Job
from shunt.run.collect import ShardsOpen, collect
from shunt.run.manifest import Manifest
from shunt.run.partial import collect_partial
from shunt.run.prepare import prepare
from shunt.run.status import RunState, StatusReader
from shunt.run.verify import verify
from shunt.testing.memory_store import MemoryStore

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RENDERER = renderer_for("fake", revision=None, max_model_len=None, fake=True)


class Run:
    """Six rows in shards of two, the last one an error row; rows end when they are told to."""

    def __init__(self, directory: Path, **row: Any) -> None:
        source = directory / "in.jsonl"
        rows = [{"id": n, "prompt": f"say {n}", **row} for n in range(5)] + [{"id": "bad"}]
        source.write_text("".join(json.dumps(row) + "\n" for row in rows))
        sections = {"input": {"path": str(source)}, "output": {"path": str(directory / "out")}}
        model = {"path": "fake", "engine_kind": "fake"}
        job = Job.model_validate({"name": "part", "model": model, "shard_prompts": 2, **sections})
        self.store = MemoryStore()
        self.manifest: Manifest = prepare(job, self.store, RENDERER, now=NOW)
        self._observer = LeaseObserver(self.store, self.manifest.run_id, 30.0, lambda: 0.0)
        self._logs: dict[str, CheckpointLog] = {}

    def end(self, *indexes: int, reason: str = "stop") -> None:
        for index in indexes:
            finish = Finish(reason, None, f"text {index}")
            gain = Gain(index, 0, 0, Generation((index + 1,), num_prompt_tokens=5, finish=finish))
            self._log(self.manifest.shards[index // 2].shard_id).append([gain])

    def _log(self, shard_id: str) -> CheckpointLog:
        if shard_id not in self._logs:
            lease = self._observer.acquire(shard_id, "me")
            assert lease is not None
            progress = replay(self.store, self.manifest.run_id, shard_id)
            self._logs[shard_id] = CheckpointLog(lease, progress)
        return self._logs[shard_id]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_finished_rows_are_written_beside_nothing_that_says_that_they_are_all(
    tmp_path: Path,
) -> None:
    run = Run(tmp_path)
    run.end(0, 3)
    before = set(run.store.list(""))
    part = collect_partial(run.store, run.manifest, now=NOW)
    assert set(run.store.list("")) == before
    folder = Path(part.directory)
    assert sorted(path.name for path in folder.iterdir()) == [
        "results.partial.jsonl", "results.partial.parquet", "summary.partial.json"
    ]  # fmt: skip
    assert (part.num_rows, part.num_ok, part.num_errors, part.num_open) == (6, 2, 1, 3)
    rows = lines(folder / "results.partial.jsonl")
    assert [(row["id"], row["generated_text"]) for row in rows] == [
        ("0", "text 0"), ("3", "text 3"), ("bad", None)
    ]  # fmt: skip
    table = pq.read_table(folder / "results.partial.parquet")
    assert table.column("id").to_pylist() == ["0", "3", "bad"]
    assert json.loads((folder / "summary.partial.json").read_text())["partial"] is True
    assert StatusReader(run.store, run.manifest.run_id).read().state is RunState.OPEN
    with pytest.raises(ShardsOpen):
        verify(run.store, run.manifest)
    with pytest.raises(ShardsOpen):
        collect(run.store, run.manifest, now=NOW)


def test_the_whole_results_take_the_place_of_a_part(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.end(0)
    collect_partial(run.store, run.manifest, now=NOW)
    run.end(1, 2, 3, 4)
    summary = collect(run.store, run.manifest, now=NOW)
    assert sorted(path.name for path in Path(summary.directory).iterdir()) == [
        "results.jsonl", "results.parquet", "summary.json"
    ]  # fmt: skip
    assert verify(run.store, run.manifest).ok


def test_a_shard_that_cannot_be_read_is_told_and_the_others_are_written(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.end(0, 2)
    damaged = run.manifest.shards[0].shard_id
    [segment, *_] = run.store.list(keys.segment_prefix(run.manifest.run_id, damaged))
    run.store.put(segment, b"not a segment")
    part = collect_partial(run.store, run.manifest, now=NOW)
    assert list(part.unreadable_shards) == [damaged]
    assert (part.num_ok, part.num_errors) == (1, 1)


def test_cut_answers_are_counted_and_structured_ones_apart(tmp_path: Path) -> None:
    run = Run(tmp_path, sampling={"structured_outputs": {"choice": ["a"]}})
    run.end(0, 1, reason="length")
    run.end(2, 3, 4)
    summary = collect(run.store, run.manifest, now=NOW)
    assert (summary.num_cut_rows, summary.num_cut_structured_rows) == (2, 2)
    plain = Run(tmp_path)
    plain.end(0, reason="length")
    plain.end(1, 2, 3, 4)
    summary = collect(plain.store, plain.manifest, now=NOW)
    assert (summary.num_cut_rows, summary.num_cut_structured_rows) == (1, 0)


def test_each_row_says_where_it_came_from_where_that_is_asked_for(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.end(0, 1, 2, 3, 4)
    collect(run.store, run.manifest, now=NOW)
    output = run.manifest.job.output.model_copy(update={"origin": True})
    job = run.manifest.job.model_copy(update={"output": output})
    asked = run.manifest.model_copy(update={"job": job})
    summary = collect(run.store, asked, now=NOW)
    rows = lines(Path(summary.directory) / "results.jsonl")
    assert [row["input_line"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert {row["input_file"] for row in rows} == {str(tmp_path / "in.jsonl")}
    assert verify(run.store, asked).ok
