"""Results say of every structured answer whether it keeps its constraint."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from shunt.checkpoint.generation import Finish, Generation
from shunt.checkpoint.lease import LeaseObserver
from shunt.checkpoint.log import CheckpointLog
from shunt.checkpoint.progress import replay
from shunt.checkpoint.segment import Gain
from shunt.dataset.rendering import renderer_for
from shunt.job.job import Job
from shunt.results.summary import ResultSummary
from shunt.run.collect import collect
from shunt.run.manifest import Manifest
from shunt.run.prepare import prepare
from shunt.run.run_id import find_dataset, run_id_of
from shunt.run.verify import verify
from shunt.testing.memory_store import MemoryStore

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SCHEMA = {"structured_outputs": {"json": {"type": "integer", "minimum": 3}}}
ROWS: list[dict[str, Any]] = [{"sampling": SCHEMA}] * 4 + [{}]
FINISHES = [
    Finish("stop", None, "7"),
    Finish("stop", None, "1"),
    Finish("length", None, "-"),
    Finish("stop", "\n", "-"),
    Finish("stop", None, "anything"),
]


def job_of(directory: Path, rows: list[dict[str, Any]], **errors: str) -> Job:
    source = directory / "in.jsonl"
    source.write_text(
        "".join(json.dumps({"prompt": f"x{i}", **row}) + "\n" for i, row in enumerate(rows))
    )
    return Job.model_validate(
        {
            "name": "small",
            "model": {"path": "fake", "engine_kind": "fake"},
            "input": {"path": str(source)},
            "output": {"path": str(directory / "out")},
            "errors": errors,
        }
    )


def finished(job: Job, *, earlier: bool = False) -> tuple[MemoryStore, Manifest, ResultSummary]:
    """`earlier`: the manifest is that of a version which did not look at answers."""
    store = MemoryStore()
    renderer = renderer_for("fake", revision=None, max_model_len=None, fake=True)
    manifest = prepare(job, store, renderer, now=NOW)
    if earlier:
        manifest = manifest.model_copy(update={"structured": False})
    lease = LeaseObserver(store, manifest.run_id, 30.0, lambda: 0.0).acquire("000000", "me")
    assert lease is not None
    log = CheckpointLog(lease, replay(store, manifest.run_id, "000000"))
    log.append(
        [
            Gain(index, 0, 0, Generation((index + 1,), finish=FINISHES[index]))
            for index in range(manifest.num_rows)
        ]
    )
    return store, manifest, collect(store, manifest, now=NOW)


def lines_of(summary: ResultSummary) -> list[dict[str, Any]]:
    text = (Path(summary.directory) / "results.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_a_column_says_what_became_of_each_constraint(tmp_path: Path) -> None:
    store, manifest, summary = finished(job_of(tmp_path, ROWS))
    rows = lines_of(summary)
    assert [row["structure"] for row in rows] == ["kept", "broken", "cut", "cut", None]
    assert rows[1]["structure_problem"] == "$: 1 is less than the minimum of 3"
    assert rows[1]["generated_text"] == "1"
    table = pq.read_table(Path(summary.directory) / "results.parquet")
    assert table.column("structure").to_pylist() == [row["structure"] for row in rows]
    assert summary.num_errors == 0
    assert verify(store, manifest).problems == []


def test_by_policy_a_broken_answer_is_an_error_row(tmp_path: Path) -> None:
    store, manifest, summary = finished(job_of(tmp_path, ROWS, broken_structure="error"))
    rows = lines_of(summary)
    assert [row["error_code"] for row in rows] == [None, "broken_structure", None, None, None]
    assert rows[1]["error_message"] == (
        "the answer breaks its schema: $: 1 is less than the minimum of 3"
    )
    assert summary.errors == {"broken_structure": 1}
    assert verify(store, manifest).problems == []


@pytest.mark.parametrize(("rows", "earlier"), [(ROWS[4:], False), (ROWS, True)])
def test_other_runs_have_the_columns_that_they_had(
    tmp_path: Path, rows: list[dict[str, Any]], earlier: bool
) -> None:
    store, manifest, summary = finished(job_of(tmp_path, rows), earlier=earlier)
    assert not any("structure" in row for row in lines_of(summary))
    assert verify(store, manifest).problems == []


def test_the_policy_is_part_of_the_run_and_its_default_is_not(tmp_path: Path) -> None:
    jobs = job_of(tmp_path, ROWS), job_of(tmp_path, ROWS, broken_structure="error")
    first, second = (run_id_of(job, find_dataset(job)) for job in jobs)
    assert first != second
    assert (
        run_id_of(job_of(tmp_path, ROWS, broken_structure="keep"), find_dataset(jobs[0])) == first
    )
