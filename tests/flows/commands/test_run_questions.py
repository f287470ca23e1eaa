"""The commands that ask about a run or a job: status, verify, collect, preflight, schema."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.flows.conftest import Desk

pytestmark = pytest.mark.timeout(240)


def test_status_tells_counts_shards_and_events(finished: Desk) -> None:
    status = finished.status()

    assert (status["state"], status["rows_terminal"], status["rows_failed"]) == ("collected", 60, 0)
    assert [shard["done"] for shard in status["shards"]] == [True] * 6
    assert {event["kind"] for event in status["events"]} >= {"worker_started", "collected"}
    plain = finished.shunt("status", "small")
    assert "is collected: 60 of 60 rows" in plain.stdout


def test_status_without_a_run_lists_them(finished: Desk) -> None:
    (run,) = json.loads(finished.shunt("status", "--json").stdout)["runs"]
    assert run["run_id"].startswith("small-")
    assert (run["state"], run["rows_done"], run["rows_total"]) == ("collected", 60, 60)
    header, line = finished.shunt("status").stdout.splitlines()
    assert header.split() == ["run", "state", "rows", "age", "USD"]
    assert line.split()[:3] == [run["run_id"], "collected", "60/60"]


def test_a_beginning_that_names_two_runs_lists_them(desk: Desk) -> None:
    for sample in ("3", "4"):
        late = ("--set", "limits.deadline=2020-01-01T00:00:00Z")
        desk.shunt("run", "job.yaml", "--no-prefect", "--sample", sample, *late)
    refused = desk.shunt("status", "small")

    assert refused.returncode == 2
    assert refused.stderr.count("small-") == 2


def test_verify_proves_the_results_and_notices_a_changed_one(
    finished: Desk, tmp_path: Path
) -> None:
    good = finished.shunt("verify", "small", "--json")
    assert good.returncode == 0
    assert json.loads(good.stdout)["problems"] == []

    (results,) = finished.directory.glob("results/*/results.jsonl")
    saved = shutil.copy2(results, tmp_path)
    results.write_text(results.read_text().replace('"row-7"', '"row-77"', 1))
    bad = finished.shunt("verify", "small", "--json")
    shutil.copy2(saved, results)

    assert bad.returncode == 1
    assert json.loads(bad.stdout)["problems"]


def test_collect_writes_to_another_directory(finished: Desk, tmp_path: Path) -> None:
    done = finished.shunt("collect", "small", "--output", str(tmp_path / "copy"), "--json")

    (first,) = finished.directory.glob("results/*/results.jsonl")
    copy = tmp_path / "copy" / first.parent.name
    assert json.loads(done.stdout)["summary"]["directory"] == str(copy)
    assert (copy / "results.jsonl").read_bytes() == first.read_bytes()


def test_an_open_run_is_neither_collected_nor_verified(slow_desk: Desk) -> None:
    late = ("--set", "limits.deadline=2020-01-01T00:00:00Z")
    assert slow_desk.shunt("run", "job.yaml", "--no-prefect", *late).returncode == 4

    for command in ("collect", "verify"):
        refused = slow_desk.shunt(command, "small")
        assert refused.returncode == 1
        assert "not finished" in refused.stderr + refused.stdout
        assert "Traceback" not in refused.stderr


def test_preflight_tells_file_and_line_of_every_mistake(desk: Desk) -> None:
    with (desk.directory / "prompts.jsonl").open("a") as prompts:
        prompts.write('{broken\n{"id": "e", "prompt": ""}\n')
    told = desk.shunt("preflight", "job.yaml", "--json")

    assert told.returncode == 0
    report = json.loads(told.stdout)
    assert report["errors"] == {"malformed_row": 1, "empty_prompt": 1}
    plain = desk.shunt("preflight", "job.yaml", "--strict")
    assert plain.returncode == 2
    assert "prompts.jsonl:61" in plain.stdout
    assert "prompts.jsonl:62" in plain.stdout


def test_preflight_says_when_no_row_can_run(desk: Desk) -> None:
    (desk.directory / "prompts.jsonl").write_text('{broken\n{"id": "e", "prompt": ""}\n')
    refused = desk.shunt("preflight", "job.yaml", "--json")

    assert refused.returncode == 2
    assert json.loads(refused.stdout)["num_good_rows"] == 0
    assert "no row of the input can run" in refused.stderr


def test_preflight_with_a_sample_runs_it(desk: Desk) -> None:
    done = desk.shunt("preflight", "job.yaml", "--sample", "5", "--json")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["summary"]["num_rows"] == 5


def test_the_schema_describes_a_job(desk: Desk) -> None:
    schema = json.loads(desk.shunt("schema").stdout)

    assert set(desk.job) <= set(schema["properties"])
    assert schema["additionalProperties"] is False


def test_asking_imports_neither_prefect_nor_scipy() -> None:
    """They take seconds and half a second to import; `shunt status` must not."""
    script = "import sys, flows.cli; print('prefect' in sys.modules or 'scipy' in sys.modules)"
    told = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() == "False"


def test_a_deadline_that_has_passed_is_refused_before_anything(desk: Desk) -> None:
    late = ("--set", "limits.deadline=2020-01-01T00:00:00Z")
    for command in (("preflight", "job.yaml"), ("run", "job.yaml", "--dry-run")):
        refused = desk.shunt(*command, *late)
        assert refused.returncode == 2
        assert "limits.deadline: 2020-01-01T00:00:00+00:00 has passed; set a later one" in (
            refused.stderr
        )


def test_a_run_that_is_not_in_a_store_is_told_which_store_was_looked_in(desk: Desk) -> None:
    (desk.directory / "runs").mkdir()
    refused = desk.shunt("status", "nothing", "--store", "runs")
    assert refused.returncode == 2
    assert f"is not in {(desk.directory / 'runs').as_uri()}. --store goes by" in refused.stderr
