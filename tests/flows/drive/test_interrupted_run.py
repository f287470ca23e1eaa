"""A run that is stopped in the middle, by anybody: it says so, leaves nothing, and goes on."""

import json
import os
import re
import signal

import pytest

from tests.flows.conftest import Desk, wait_until

pytestmark = pytest.mark.timeout(240)

FAST = ("--set", "model.fake_tokens_per_s=4000")


@pytest.fixture(scope="module")
def undisturbed(finished: Desk) -> dict[str, str]:
    return finished.texts()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_drains_the_workers_and_says_how_to_go_on(
    slow_desk: Desk, number: signal.Signals, undisturbed: dict[str, str]
) -> None:
    run = slow_desk.fork("run", "job.yaml", "--no-prefect")
    wait_until(lambda: len(slow_desk.segments()) > 4)
    run.send_signal(number)
    stdout, stderr = run.communicate(timeout=60)

    assert run.returncode == 75, stderr
    assert "workers save what they have" in stderr
    assert slow_desk.processes() == []
    (command,) = re.findall(r"Go on with: shunt (resume .*)", stdout)
    kept = slow_desk.status()["output_tokens"]
    assert kept > 0
    (partly,) = re.findall(r"What is finished: shunt (collect .*)", stdout)
    part = slow_desk.shunt(*partly.split(), "--json")
    assert part.returncode == 0, part.stderr
    assert json.loads(part.stdout)["num_open"] > 0

    resumed = slow_desk.shunt(*command.split(), *FAST)
    assert resumed.returncode == 0, resumed.stderr
    assert slow_desk.texts() == undisturbed
    assert sum(row["num_resumes"] for row in slow_desk.rows()) > 0
    assert slow_desk.shunt("verify", "small").returncode == 0


def test_a_killed_driver_leaves_no_process_and_loses_no_row(
    slow_desk: Desk, undisturbed: dict[str, str]
) -> None:
    too_slow_to_finish = ("--set", "model.fake_tokens_per_s=1")
    run = slow_desk.fork("run", "job.yaml", "--no-prefect", *too_slow_to_finish)
    wait_until(lambda: len(slow_desk.segments()) > 4)
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate()
    wait_until(lambda: slow_desk.processes() == [], timeout_s=30)

    resumed = slow_desk.shunt("run", "job.yaml", "--no-prefect", *FAST)
    assert resumed.returncode == 0, resumed.stderr
    assert slow_desk.texts() == undisturbed
    assert slow_desk.shunt("verify", "small").returncode == 0


def test_workers_taken_away_are_replaced(slow_desk: Desk, undisturbed: dict[str, str]) -> None:
    drill = "[{after_s: 5, worker: 0}, {after_s: 6, worker: 1, notice_s: 5}]"
    quick = ("--set", "model.fake_tokens_per_s=30")
    done = slow_desk.shunt(
        "run", "job.yaml", "--no-prefect", "--set", f"fleet.interruptions={drill}", *quick
    )

    assert done.returncode == 0, done.stderr
    assert slow_desk.texts() == undisturbed
    events = [event["kind"] for event in slow_desk.status()["events"]]
    assert events.count("interrupted") == 2
    assert events.count("worker_started") == 4


def test_a_killed_worker_holds_up_nobody(slow_desk: Desk, undisturbed: dict[str, str]) -> None:
    """Its parent saw it end, so its shards do not wait for leases of an hour to lapse."""
    run = slow_desk.fork("run", "job.yaml", "--no-prefect", "--set", "lease_term_s=3600")
    wait_until(lambda: working(slow_desk))
    os.kill(working(slow_desk)[0], signal.SIGKILL)
    _, stderr = run.communicate(timeout=180)

    assert run.returncode == 0, stderr
    assert slow_desk.texts() == undisturbed
    events = [event["kind"] for event in slow_desk.status()["events"]]
    assert events.count("interrupted") == 1
    assert "shard_resumed" in events


def working(desk: Desk) -> list[int]:
    """Processes of the workers that have saved something."""
    statuses = [json.loads(p.read_text()) for p in desk.directory.glob("runs/runs/*/nodes/[!.]*")]
    return [status["pid"] for status in statuses if status["segments"]]


def test_cancel_stops_a_run_of_another_process_until_it_is_resumed(
    slow_desk: Desk, undisturbed: dict[str, str]
) -> None:
    run = slow_desk.fork("run", "job.yaml", "--no-prefect")
    wait_until(lambda: len(slow_desk.segments()) > 4)
    assert slow_desk.shunt("cancel", "small").returncode == 0
    stdout, _ = run.communicate(timeout=60)

    assert run.returncode == 75
    assert "cancelled" in stdout
    assert slow_desk.status()["state"] == "cancelled"
    assert "cancelled" in [event["kind"] for event in slow_desk.status()["events"]]
    assert slow_desk.processes() == []
    assert "is already cancelled" in slow_desk.shunt("cancel", "small").stdout
    assert slow_desk.shunt("resume", "small", *FAST).returncode == 0
    assert slow_desk.texts() == undisturbed
    assert "finished; there is nothing to cancel" in slow_desk.shunt("cancel", "small").stdout


def test_a_store_elsewhere_is_named_in_the_command_to_go_on(slow_desk: Desk) -> None:
    elsewhere = slow_desk.directory / "elsewhere"
    late = ("--set", "limits.deadline=2020-01-01T00:00:00Z")
    stopped = slow_desk.shunt(
        "run", "job.yaml", "--no-prefect", *late, "--set", f"store.uri={elsewhere}"
    )

    (command,) = re.findall(r"Go on with: shunt (resume .*)", stopped.stdout)
    never = ("--set", "limits.deadline=null")
    assert slow_desk.shunt(*command.split(), *FAST, *never).returncode == 0
    assert len(slow_desk.rows()) == 60


def test_a_job_that_was_put_right_takes_effect_on_the_next_run(desk: Desk) -> None:
    """The workers go by the job of this invocation, not by that of the first."""
    run = desk.fork("run", "job.yaml", "--no-prefect", "--set", "model.fake_tokens_per_s=0.1")
    wait_until(lambda: list(desk.directory.glob("runs/runs/*/shards/*/leases/*.json")))
    run.send_signal(signal.SIGTERM)
    run.communicate(timeout=60)
    assert run.returncode == 75

    assert desk.shunt("run", "job.yaml", "--no-prefect", *FAST).returncode == 0


def test_resuming_refuses_to_change_what_decides_results(finished: Desk) -> None:
    refused = finished.shunt("resume", "small", "--set", "sampling.temperature=1")

    assert refused.returncode == 2
    assert "makes another run" in refused.stderr
