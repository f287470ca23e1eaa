"""Following a run that somebody else drives."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time

import pytest

from tests.flows.conftest import REPOSITORY, Desk, wait_until

pytestmark = pytest.mark.timeout(240)
QUICK = ("--no-prefect", "--set", "model.fake_tokens_per_s=30")


def test_watch_follows_to_the_end(slow_desk: Desk) -> None:
    run = slow_desk.start("run", "job.yaml", *QUICK)
    wait_until(lambda: list(slow_desk.directory.glob("runs/runs/*/manifest.json")))
    watched = slow_desk.shunt("watch", "small", "--every", "0.2")
    run.communicate(timeout=120)

    assert watched.returncode == 0
    assert "/60 rows" in watched.stdout
    again = slow_desk.shunt("watch", "small", "--json")
    assert json.loads(again.stdout)["state"] == "collected"


def test_every_look_is_an_object_with_speed_and_a_range(slow_desk: Desk) -> None:
    run = slow_desk.start("run", "job.yaml", *QUICK)
    wait_until(lambda: list(slow_desk.directory.glob("runs/runs/*/manifest.json")))
    watched = slow_desk.shunt("watch", "small", "--json", "--every", "0.2")
    run.communicate(timeout=120)

    looks = [json.loads(line) for line in watched.stdout.splitlines()]
    assert watched.stderr == ""
    moving = [look for look in looks if look["tokens_per_s"] > 0]
    assert moving
    assert set(moving[0]["tokens_per_s_by_worker"]) <= {n["node_id"] for n in moving[0]["nodes"]}
    for look in (look for look in looks if look["eta_s"] is not None):
        soonest_s, latest_s = look["eta_s"]
        assert 0 <= soonest_s <= latest_s
    assert "course" not in looks[-1]["nodes"][0]


def test_ctrl_c_leaves_a_terminal_in_order_and_the_run_alone(slow_desk: Desk) -> None:
    run = slow_desk.fork("run", "job.yaml", "--no-prefect")
    wait_until(lambda: len(slow_desk.segments()) > 2, timeout_s=120)
    ours, theirs = pty.openpty()
    watching = subprocess.Popen(
        [sys.executable, "-m", "flows", "watch", "small"], cwd=slow_desk.directory,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "TERM": "xterm", "COLUMNS": "120"},
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, text=True,
    )  # fmt: skip
    slow_desk.started.append(watching)
    os.close(theirs)
    shown = _read_until(ours, "in flight")
    watching.send_signal(signal.SIGINT)
    shown += _read_until(ours, "the run goes on")
    assert watching.wait(60) == 0
    shown += _rest(ours)
    os.close(ours)

    assert "worker-0" in shown
    assert "Traceback" not in shown
    assert "\x1b[?25h" in shown, "the cursor is there again"
    assert run.poll() is None
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=60)


def test_a_run_that_nobody_works_on_says_how_to_go_on(slow_desk: Desk) -> None:
    run = slow_desk.fork("run", "job.yaml", "--no-prefect")
    wait_until(lambda: len(slow_desk.segments()) > 2, timeout_s=120)
    run.send_signal(signal.SIGTERM)
    run.communicate(timeout=60)
    watching = slow_desk.start("watch", "small", "--every", "0.2")
    assert watching.stdout is not None
    told = ""
    while "nobody works on this run now" not in told:
        line = watching.stdout.readline()
        assert line, "watch ended without saying it"
        told += line
    watching.send_signal(signal.SIGINT)
    watching.communicate(timeout=60)
    assert "shunt resume small-" in told
    assert watching.returncode == 0


def _read_until(descriptor: int, wanted: str, timeout_s: float = 120.0) -> str:
    shown, deadline_s = "", time.monotonic() + timeout_s
    while wanted not in shown:
        assert time.monotonic() < deadline_s, shown
        if select.select([descriptor], [], [], 1.0)[0]:
            shown += os.read(descriptor, 65536).decode(errors="replace")
    return shown


def _rest(descriptor: int) -> str:
    shown = ""
    while select.select([descriptor], [], [], 0.2)[0]:
        try:
            shown += os.read(descriptor, 65536).decode(errors="replace")
        except OSError:  # the other end is closed
            break
    return shown
