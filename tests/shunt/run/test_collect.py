"""Publishing again, and a disk that is full."""

import errno
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shunt.dataset.rendering import renderer_for
from shunt.errors import JobError
from shunt.job.job import Job
from shunt.results import publishing
from shunt.run import collect as collecting
from shunt.run.manifest import Manifest
from shunt.run.prepare import prepare
from shunt.testing.memory_store import MemoryStore

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = datetime(2026, 1, 2, tzinfo=UTC)
CASES = Path(__file__).parents[2] / "cases"


def error_run(directory: Path) -> tuple[MemoryStore, Manifest]:
    """A run whose only row is an error row, so that it is finished at once."""
    source = directory / "in.jsonl"
    source.write_text('{"other": 1}\n')
    text = {"name": "small", "model": {"path": "fake", "engine_kind": "fake"}}
    job = Job.model_validate(
        {**text, "input": {"path": str(source)}, "output": {"path": str(directory / "{run_id}")}}
    )
    store = MemoryStore()
    renderer = renderer_for("fake", revision=None, max_model_len=None, fake=True)
    return store, prepare(job, store, renderer, now=NOW)


def test_a_full_disk_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object, **_named: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    store, manifest = error_run(tmp_path)
    monkeypatch.setattr(collecting, "write_results", full)
    with pytest.raises(JobError, match="No space left"):
        collecting.collect(store, manifest, now=NOW)


def test_no_old_summary_beside_new_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    store, manifest = error_run(tmp_path)
    output = tmp_path / "again"
    collecting.collect(store, manifest, output=str(output), now=NOW)
    output /= manifest.run_id
    assert (output / "summary.json").exists()
    (output / "results.jsonl").unlink()
    monkeypatch.setattr(publishing, "_move_in", fail)
    with pytest.raises(JobError):
        collecting.collect(store, manifest, output=str(output.parent), now=NOW)
    assert not (output / "summary.json").exists()


def test_results_that_were_removed_or_are_asked_for_elsewhere_are_written(tmp_path: Path) -> None:
    """And nothing is written where all that is asked for is there."""
    store, manifest = error_run(tmp_path)
    first = collecting.collect(store, manifest, now=NOW)
    directory = Path(first.directory)
    assert collecting.collect(store, manifest, now=LATER) == first
    shutil.rmtree(directory)
    assert collecting.collect(store, manifest, now=LATER).files == first.files
    assert (directory / "results.jsonl").is_file()
    elsewhere = collecting.collect(store, manifest, output=str(tmp_path / "new"), now=LATER)
    assert Path(elsewhere.directory) == tmp_path / "new" / manifest.run_id
    assert sorted(p.name for p in Path(elsewhere.directory).iterdir()) == [
        "results.jsonl", "results.parquet", "summary.json"
    ]  # fmt: skip


def test_an_output_that_cannot_be_written_is_known_before_anything_is_started() -> None:
    """The superuser may write everywhere, and `/proc` takes nothing all the same."""
    with pytest.raises(JobError, match=r"/proc/nope cannot be written"):
        publishing.check_writable("/proc/nope")


def test_values_that_python_cannot_hold_are_told_as_exact_text(tmp_path: Path) -> None:
    source = CASES / "t_ns.parquet"
    job = Job.model_validate(
        {
            "name": "ns",
            "model": {"path": "fake", "engine_kind": "fake"},
            "input": {"path": str(source), "columns": {"prompt": "none"}},
            "output": {"path": str(tmp_path)},
        }
    )
    store = MemoryStore()
    renderer = renderer_for("fake", revision=None, max_model_len=None, fake=True)
    summary = collecting.collect(store, prepare(job, store, renderer, now=NOW), now=NOW)
    given = pq.read_table(source)
    kept = pq.read_table(Path(summary.directory) / "results.parquet")
    assert kept.column("t").equals(given.column("t"))
    [line, *_] = (Path(summary.directory) / "results.jsonl").read_text().splitlines()
    assert json.loads(line)["t"] == given.column("t").cast(pa.string())[0].as_py()
