"""`shunt run`: to the end, twice, with bad rows, out of time, and how it says so."""

import json
import re
from pathlib import Path

import pytest

from tests.flows.conftest import Desk

pytestmark = pytest.mark.timeout(240)

BAD_LINES = ("{broken", '{"id": "empty", "prompt": ""}', '{"id": "row-3", "prompt": "again"}')


def test_a_run_ends_with_every_row_and_says_where_they_are(finished: Desk) -> None:
    rows = finished.rows()

    assert [row["id"] for row in rows] == [f"row-{n}" for n in range(60)]
    assert all(row["finish_reason"] == "stop" for row in rows)
    assert finished.processes() == []


def test_a_second_run_does_no_work(finished: Desk) -> None:
    before = written(finished)
    again = finished.shunt("run", "job.yaml", "--no-prefect")

    assert again.returncode == 0
    assert "results/small-" in again.stdout
    assert written(finished) == before


def written(desk: Desk) -> dict[Path, int]:
    """When each file was written. Folders change: the output is tried with a file."""
    files = [path for path in desk.directory.rglob("*") if path.is_file()]
    return {path: path.stat().st_mtime_ns for path in files}


def test_json_leaves_nothing_else_on_stdout(desk: Desk) -> None:
    done = desk.process("run", "job.yaml", "--no-prefect", "--json")

    told = json.loads(done.stdout)
    assert (told["exit_code"], done.returncode) == (0, 0)
    assert told["summary"]["num_ok"] == 60
    assert Path(told["summary"]["directory"], "results.parquet").exists()
    assert "60 rows" in done.stderr


def test_bad_rows_over_the_limit_end_with_3_and_become_error_rows(desk: Desk) -> None:
    add_lines(desk, BAD_LINES)
    done = desk.shunt("run", "job.yaml", "--no-prefect", "--json")

    assert done.returncode == 3
    told = json.loads(done.stdout)
    assert told["reason"] == "3 error rows, 0 allowed"
    assert told["summary"]["num_ok"] == 60
    codes = [row["error_code"] for row in desk.rows()[60:]]
    assert codes == ["malformed_row", "empty_prompt", "duplicate_id"]

    allowed = desk.shunt("run", "job.yaml", "--no-prefect", "--set", "errors.max_error_rows=3")
    assert allowed.returncode == 0
    (command,) = re.findall(r"which and why: shunt (errors .*)", allowed.stdout)
    listed = desk.shunt(*command.split()).stdout
    assert re.search(r"empty_prompt +1 +prompts.jsonl:62 +the prompt is empty", listed)
    of_one = desk.shunt(*command.split(), "--code", "duplicate_id", "--json")
    (row,) = json.loads(of_one.stdout)["rows"]
    assert (row["row_id"], row["line"]) == ("row-3", 63)
    unknown = desk.shunt(*command.split(), "--code", "nonsense")
    assert unknown.returncode == 2
    assert "(there: malformed_row, empty_prompt, duplicate_id)" in unknown.stderr


def test_cut_answers_are_told_and_may_count_as_errors(desk: Desk) -> None:
    short = ("--set", "sampling={max_tokens: 3, ignore_eos: true}")
    done = desk.shunt("run", "job.yaml", "--no-prefect", *short)
    assert done.returncode == 0
    assert "cut: 60 answers ended for want of room" in done.stdout
    counted = ("--set", "errors.count_cut=all")
    refused = desk.shunt("run", "job.yaml", "--no-prefect", *short, *counted)
    assert refused.returncode == 3
    assert "0 error rows and 60 cut ones, 0 allowed" in refused.stdout


def test_strict_refuses_to_start(desk: Desk) -> None:
    add_lines(desk, BAD_LINES)
    refused = desk.shunt("run", "job.yaml", "--no-prefect", "--strict")

    assert refused.returncode == 2
    assert "prompts.jsonl:61" in refused.stderr + refused.stdout
    assert not list(desk.directory.glob("runs/runs/*/manifest.json"))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("models/none", "model.path: models/none is no directory here"),
        (".", "holds no config.json"),
    ],
)
def test_a_model_that_is_not_there_is_said_before_anything_starts(
    desk: Desk, path: str, message: str
) -> None:
    model = ("--set", f"model.path={path}", "--set", "model.engine_kind=vllm")
    context = ("--set", "model.max_model_len_tokens=64")
    refused = desk.shunt("run", "job.yaml", "--no-prefect", *model, *context)

    assert refused.returncode == 2
    assert message in refused.stderr
    assert not (desk.directory / "runs").exists()


def test_a_dry_run_starts_nothing(desk: Desk) -> None:
    done = desk.shunt("run", "job.yaml", "--dry-run", "--json")

    assert done.returncode == 0
    assert json.loads(done.stdout)["num_good_rows"] == 60
    assert not list(desk.directory.glob("runs/runs/*"))


def test_a_sample_is_a_run_of_its_own(desk: Desk) -> None:
    done = desk.shunt("run", "job.yaml", "--no-prefect", "--sample", "7", "--json")

    assert json.loads(done.stdout)["summary"]["num_rows"] == 7
    whole = desk.shunt("run", "job.yaml", "--no-prefect", "--json")
    assert json.loads(whole.stdout)["summary"]["num_rows"] == 60


def test_a_deadline_that_has_passed_ends_with_4_and_can_be_lifted(slow_desk: Desk) -> None:
    late = ("--set", "limits.deadline=2020-01-01T00:00:00Z")
    stopped = slow_desk.shunt("run", "job.yaml", "--no-prefect", *late)

    assert stopped.returncode == 4
    assert "deadline" in stopped.stdout
    assert slow_desk.processes() == []
    fast = ("--set", "model.fake_tokens_per_s=4000")
    assert slow_desk.shunt("run", "job.yaml", "--no-prefect", *fast).returncode == 0


def test_workers_that_all_fail_end_with_1_and_one_clear_line(desk: Desk) -> None:
    broken = ("--set", "fleet.worker_python=/bin/false", "--set", "fleet.max_crashes=0")
    failed = desk.process("run", "job.yaml", "--no-prefect", *broken)

    assert failed.returncode == 1
    assert "every worker failed; their logs are in" in failed.stderr
    assert "Traceback" not in failed.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("run", "absent.yaml"), "absent.yaml: cannot be read"),
        (("run", "prompts.jsonl"), "prompts.jsonl"),
        (("run", "job.yaml", "--set", "fleet.wrkers=2"), "fleet.wrkers: unknown key"),
        (("run", "job.yaml", "--set", "fleet.workers=0"), "fleet.workers: must be at least 1"),
        (("run", "job.yaml", "--set", "workers"), "write it as section.key=value"),
        (("run", "job.yaml", "--set", "input.path=nowhere.jsonl"), "nowhere.jsonl"),
        (("run", "job.yaml", "--set", "output.path=job.yaml/x"), "cannot be written"),
        (("run", "job.yaml", "--sample", "0"), "--sample"),
        (("run", "job.yaml", "--loud"), "--loud"),
        (("run", "job.yaml", "--set", "fleet.worker_python=/nowhere/python"), "make environments"),
        (("status", "small-000000000000"), "--store runs: "),
        (("status", "small-0", "--store", "."), "small-0"),
    ],
)
def test_what_is_wrong_from_the_start_ends_with_2(
    desk: Desk, arguments: tuple[str, ...], told: str
) -> None:
    refused = desk.shunt(*arguments)

    assert refused.returncode == 2, refused.stderr
    assert told in refused.stderr
    assert "Traceback" not in refused.stderr
    assert refused.stdout == ""


def test_a_refusal_is_json_where_json_was_asked_for(desk: Desk) -> None:
    refused = desk.shunt("run", "absent.yaml", "--json")

    told = json.loads(refused.stdout)
    assert (told["kind"], told["exit_code"], refused.returncode) == ("JobError", 2, 2)
    assert "absent.yaml: cannot be read" in told["error"]


def add_lines(desk: Desk, lines: tuple[str, ...]) -> None:
    with (desk.directory / "prompts.jsonl").open("a") as prompts:
        prompts.write("\n".join(lines) + "\n")
