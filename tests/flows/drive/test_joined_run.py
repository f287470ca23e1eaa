"""A run whose workers come from elsewhere: they join, leave, are taken, and nothing is lost."""

import json
import os
import re
import signal
from pathlib import Path

import pytest

from tests.flows.conftest import Desk, wait_until

pytestmark = pytest.mark.timeout(240)

JOINED = ("--no-prefect", "--set", "fleet={kind: joined}", "--set", "lease_term_s=3")
QUICK = ("--set", "model.fake_tokens_per_s=30")


@pytest.fixture(scope="module")
def undisturbed(finished: Desk) -> dict[str, str]:
    return finished.texts()


def prepared(desk: Desk, *options: str) -> str:
    """The id of the run, which nobody drives."""
    told = desk.shunt("run", "job.yaml", "--prepare", "--json", *JOINED, *options)
    assert told.returncode == 0, told.stderr
    return json.loads(told.stdout)["run_id"]


def saved_by(desk: Desk, name: str) -> bool:
    """Whether the worker of this name has saved something."""
    statuses = [
        json.loads(p.read_text()) for p in desk.directory.glob(f"runs/runs/*/nodes/{name}*")
    ]
    return any(status["segments"] for status in statuses)


def test_workers_come_and_go_and_no_row_is_lost(
    slow_desk: Desk, undisturbed: dict[str, str]
) -> None:
    """One is killed, one is told to leave, the third does the rest."""
    run = slow_desk.fork("run", "job.yaml", *JOINED)
    wait_until(lambda: list(slow_desk.directory.glob("runs/runs/*/manifest.json")))
    workers = {}
    for name, number in (("killed", signal.SIGKILL), ("told", signal.SIGTERM)):
        workers[name] = slow_desk.fork("worker", "small", "--name", name)
        wait_until(lambda name=name: saved_by(slow_desk, name))
        assert f"worker {name}: " in slow_desk.shunt("status", "small").stdout
        workers[name].send_signal(number)
    _, told = workers["told"].communicate(timeout=60)
    assert workers["told"].returncode == 75, told
    assert "joined run small-" in told
    assert "as worker told" in told
    assert re.search(r"holds shards: \d", told)
    assert re.search(r"left run small-\w+ because it was told to \(SIGTERM\); what it gen", told)
    workers["killed"].communicate(timeout=60)

    kept = slow_desk.status()["output_tokens"]
    last = slow_desk.fork("worker", "small", "--name", "last", SHUNT_TEST="")
    stdout, stderr = run.communicate(timeout=200)
    assert run.returncode == 0, stderr
    assert re.search(r"join it with: shunt worker small-\w+ --store ", stdout)
    _, told = last.communicate(timeout=60)
    assert last.returncode == 0, told
    assert "nothing is left to do" in told
    assert kept > 0
    events = [(event["kind"], event["node_id"]) for event in slow_desk.status()["events"]]
    assert {("interrupted", "told"), ("worker_started", "last"), ("worker_ended", "last")} <= {
        *events
    }
    assert slow_desk.texts() == undisturbed
    assert sum(row["num_resumes"] for row in slow_desk.rows()) > 0
    assert slow_desk.shunt("verify", "small").returncode == 0


def test_a_run_that_nobody_drives_is_worked_on_and_collected(
    slow_desk: Desk, undisturbed: dict[str, str]
) -> None:
    """As a cluster does it: prepare, an array of workers, collect."""
    run_id = prepared(slow_desk, "--set", "model.fake_tokens_per_s=4000")
    workers = [slow_desk.fork("worker", run_id) for _ in range(2)]
    for worker in workers:
        _, told = worker.communicate(timeout=120)
        assert worker.returncode == 0, told
    assert slow_desk.shunt("collect", run_id).returncode == 0
    assert slow_desk.texts() == undisturbed
    late = slow_desk.fork("worker", run_id)
    _, told = late.communicate(timeout=60)
    assert late.returncode == 0
    assert "is finished, and its results are written" in told


def test_cancel_ends_those_who_joined(slow_desk: Desk) -> None:
    run_id = prepared(slow_desk)
    worker = slow_desk.fork("worker", run_id, "--name", "one")
    wait_until(lambda: saved_by(slow_desk, "one"))
    assert slow_desk.shunt("cancel", run_id).returncode == 0
    _, told = worker.communicate(timeout=60)
    assert worker.returncode == 0, told
    assert "because the run was cancelled; what it generated is saved" in told
    again = slow_desk.fork("worker", run_id)
    _, told = again.communicate(timeout=60)
    assert again.returncode == 0
    assert "is cancelled, so there is nothing to do" in told


def test_a_deadline_ends_a_run_that_nobody_joins(slow_desk: Desk) -> None:
    late = ("--set", "limits.deadline=2020-01-01T00:00:00Z")
    run_id = prepared(slow_desk)
    told = slow_desk.shunt("resume", run_id, *late)
    assert told.returncode == 4, told.stderr
    assert "the deadline 2020-01-01T00:00:00+00:00 has passed" in told.stdout


def test_a_setting_of_the_drive_reaches_who_joins_later(slow_desk: Desk) -> None:
    run_id = prepared(slow_desk)
    run = slow_desk.fork("resume", run_id, "--set", "model.fake_tokens_per_s=4000")
    wait_until(lambda: list(slow_desk.directory.glob("runs/runs/*/jobs/*")))
    worker = slow_desk.fork("worker", run_id)
    _, stderr = run.communicate(timeout=60)
    assert run.returncode == 0, stderr
    worker.communicate(timeout=60)
    assert worker.returncode == 0


def test_a_marker_that_promises_too_much_is_told(slow_desk: Desk, tmp_path: Path) -> None:
    run_id = prepared(slow_desk, "--set", "model.fake_tokens_per_s=4000")
    slow_desk.fork("worker", run_id).communicate(timeout=120)
    [first, *_] = sorted(slow_desk.directory.glob("runs/runs/*/shards/*/segments/*"))
    os.rename(first, tmp_path / first.name)
    told = slow_desk.shunt("resume", run_id)
    assert told.returncode == 1
    assert "marked done and are not" in told.stderr
    recheck = slow_desk.fork("worker", run_id, "--recheck")
    _, stderr = recheck.communicate(timeout=120)
    assert recheck.returncode == 0, stderr
    assert slow_desk.shunt("resume", run_id).returncode == 0


def test_what_cannot_be_joined_is_told_in_a_sentence(slow_desk: Desk, tmp_path: Path) -> None:
    prepared(slow_desk)
    for words, code, why in (
        (["worker", "other"], 2, "is not in file://"),
        (["worker", "small", "--store", str(tmp_path / "none")], 2, "is no directory here"),
    ):
        worker = slow_desk.fork(*words)
        _, told = worker.communicate(timeout=60)
        assert worker.returncode == code, told
        assert why in told
        assert "Traceback" not in told
