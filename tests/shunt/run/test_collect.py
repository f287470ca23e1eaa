"""Publishing again, and a disk that is full."""

import errno
from datetime import UTC, datetime
from pathlib import Path

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
    assert (output / "summary.json").exists()
    monkeypatch.setattr(publishing, "_move_in", fail)
    with pytest.raises(JobError):
        collecting.collect(store, manifest, output=str(output), now=NOW)
    assert not (output / "summary.json").exists()
