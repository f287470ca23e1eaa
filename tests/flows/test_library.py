"""A job from Python: rows as they are done, a handle, and the results as a table."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from flows.library import run
from shunt.errors import InputError, JobError, RunIncomplete
from shunt.run.status import RunState

pytestmark = pytest.mark.timeout(240)


def job(directory: Path, prompts: list[str], **given: Any) -> dict[str, Any]:
    lines = [json.dumps({"id": f"r{n}", "prompt": prompt}) for n, prompt in enumerate(prompts)]
    (directory / "in.jsonl").write_text("\n".join(lines) + "\n")
    return {
        "name": "note",
        "model": {"path": "none", "engine_kind": "fake", "fake_tokens_per_s": 300},
        "input": {"path": "in.jsonl"},
        "shard_prompts": 5,
        "sampling": {"max_tokens": 40},
        "checkpoint_interval_s": 0.2,
        **given,
    }


@pytest.fixture(autouse=True)
def _in_a_directory_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_rows_come_once_each_and_the_table_has_them_in_order(tmp_path: Path) -> None:
    prompts = [f"prompt {n % 35}" for n in range(40)]  # the last five equal the first
    with run(job(tmp_path, prompts)) as batch:
        rows = list(batch)
        table = batch.results()
        assert batch.status().state is RunState.COLLECTED
    assert sorted(row["id"] for row in rows) == sorted(f"r{n}" for n in range(40))
    texts = {row["id"]: row["generated_text"] for row in rows}
    assert table.column("id").to_pylist() == [f"r{n}" for n in range(40)]
    assert table.column("generated_text").to_pylist() == [texts[f"r{n}"] for n in range(40)]
    assert texts["r0"] == texts["r35"]
    again = run(job(tmp_path, prompts))
    assert again.wait().num_rows == 40
    assert {row["id"]: row["generated_text"] for row in again} == texts


def test_leaving_early_saves_and_the_same_call_goes_on(tmp_path: Path) -> None:
    prompts = [f"prompt {n}" for n in range(40)]
    slow = {"path": "none", "engine_kind": "fake", "fake_tokens_per_s": 4}
    with run(job(tmp_path, prompts, model=slow)) as batch:
        while not batch.status().output_tokens:
            time.sleep(0.05)
    saved = batch.status().output_tokens
    assert saved > 0
    with pytest.raises(RunIncomplete, match="interrupted: run the job again to go on"):
        batch.wait()
    with run(job(tmp_path, prompts)) as again:
        assert again.run_id == batch.run_id
        rows = list(again)
    assert len(rows) == 40
    assert sum(row["num_resumes"] for row in rows) > 0


def test_cancel_ends_the_iteration_with_what_is_there(tmp_path: Path) -> None:
    slow = {"path": "none", "engine_kind": "fake", "fake_tokens_per_s": 4}
    with run(job(tmp_path, [f"prompt {n}" for n in range(40)], model=slow)) as batch:
        batch.cancel()
        with pytest.raises(RunIncomplete, match="cancelled"):
            list(batch)


def test_what_is_wrong_is_told_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"shard_prompts"):
        run(job(tmp_path, ["a"], shard_prompts=0))
    with pytest.raises(InputError, match=r"no\.jsonl"):
        run(job(tmp_path, ["a"], input={"path": "no.jsonl"}))


def test_a_job_file_is_a_job(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(json.dumps(job(tmp_path, ["a", "b"])))
    with run("job.yaml", sample=1) as batch:
        assert [row["id"] for row in batch] == ["r0"]
