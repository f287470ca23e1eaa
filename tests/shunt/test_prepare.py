"""The same input and what decides results make the same run; nothing else does."""

from pathlib import Path

import pytest

from shunt.job import Job
from shunt.job_file import load_job
from shunt.prepare import find_dataset, run_id_of


def _job(tmp_path: Path, *overrides: str) -> Job:
    path = tmp_path / "job.yaml"
    path.write_text("name: test\nmodel: {path: hub/id}\ninput: {path: rows.jsonl}\n")
    return load_job(path, overrides)


def _run_id(tmp_path: Path, *overrides: str) -> str:
    job = _job(tmp_path, *overrides)
    return run_id_of(job, find_dataset(job))


@pytest.fixture(autouse=True)
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "One"}\n')
    return path


@pytest.mark.parametrize(
    "override", ["fleet.workers=3", "store.uri=s3://b/c", "output.path=x", "checkpoint_tokens=9"]
)
def test_how_a_run_is_carried_out_is_no_part_of_its_id(tmp_path: Path, override: str) -> None:
    assert _run_id(tmp_path, override) == _run_id(tmp_path)


@pytest.mark.parametrize("override", ["sampling.max_tokens=9", "input.chat=true"])
def test_what_decides_results_is_part_of_its_id(tmp_path: Path, override: str) -> None:
    assert _run_id(tmp_path, override) != _run_id(tmp_path)


def test_other_rows_are_another_run(tmp_path: Path, rows: Path) -> None:
    before = _run_id(tmp_path)
    rows.write_text('{"prompt": "Two"}\n')
    assert _run_id(tmp_path) != before
