"""How those who joined are sent away, what is said while nobody is there, who cannot join."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.flows.conftest import REPOSITORY, UNSET, Desk, wait_until

pytestmark = pytest.mark.timeout(280)

JOINED = ("--set", "fleet.kind=joined", "--set", "model.engine.max_num_seqs=8")
"""No worker takes all shards at once."""
Statuses = dict[str, Any]


@pytest.fixture(scope="module")
def undisturbed(finished: Desk) -> dict[str, str]:
    return finished.texts()


def node(desk: Desk, name: str) -> Statuses:
    """What a worker last said of itself."""
    found = list(desk.directory.glob(f"runs/runs/*/nodes/{name}.json"))
    return json.loads(found[0].read_text()) if found else {}


def works(desk: Desk, name: str) -> Callable[[], bool]:
    """Whether the worker has saved something and holds a shard."""
    return lambda: bool(node(desk, name).get("segments") and node(desk, name)["shards"])


def prepared(desk: Desk) -> bool:
    return bool(list(desk.directory.glob("runs/runs/*/manifest.json")))


def test_the_environment_of_the_worker_is_enough(finished: Desk) -> None:
    """It has no Prefect, no boto3 and no planner."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    late = subprocess.run(
        [REPOSITORY / ".venv/worker/bin/python", "-m", "flows", "worker", "small"],
        cwd=finished.directory,
        env={name: value for name, value in environment.items() if name not in UNSET},
        capture_output=True,
        text=True,
        check=False,
    )
    assert late.returncode == 0, late.stderr
    assert "is finished, and its results are written" in late.stderr


def test_a_cancelled_run_sends_away_who_joined_and_goes_on_when_resumed(
    slow_desk: Desk, undisturbed: dict[str, str]
) -> None:
    run = slow_desk.fork("run", "job.yaml", "--no-prefect", *JOINED)
    wait_until(lambda: prepared(slow_desk))
    worker = slow_desk.start("worker", "small", "--name", "one")
    wait_until(works(slow_desk, "one"))
    assert slow_desk.shunt("cancel", "small").returncode == 0
    _, said = worker.communicate(timeout=60)
    assert worker.returncode == 0, said
    assert "because the run was cancelled; what it generated is saved" in said
    run.communicate(timeout=60)
    assert run.returncode == 75
    refused = slow_desk.process("worker", "small")
    assert (refused.returncode, "is cancelled" in refused.stderr) == (0, True)

    resumed = slow_desk.fork("resume", "small", "--set", "model.fake_tokens_per_s=4000")
    wait_until(lambda: slow_desk.status()["state"] == "open")
    again = slow_desk.process("worker", "small")
    assert again.returncode == 0, again.stderr
    resumed.communicate(timeout=60)
    assert resumed.returncode == 0
    assert slow_desk.texts() == undisturbed


def test_nobody_joins_and_the_deadline_passes(desk: Desk) -> None:
    soon = (datetime.now(UTC) + timedelta(seconds=25)).isoformat()
    run = desk.fork(
        "run", "job.yaml", "--no-prefect", "--json", *JOINED, "--set", f"limits.deadline={soon}"
    )
    wait_until(lambda: prepared(desk))
    said = desk.shunt("status", "small").stdout
    (command,) = re.findall(r"join it with: shunt (worker .*)", said)
    assert json.loads(desk.shunt("status", "small", "--json").stdout)["join"] == f"shunt {command}"
    stdout, stderr = run.communicate(timeout=60)

    assert run.returncode == 4, stderr
    assert f"join it with: shunt {command}" in stderr
    ending = json.loads(stdout)
    assert "the deadline" in ending["reason"]
    assert "is cancelled" in desk.process(*command.split()).stderr

    never = ("--set", "limits.deadline=null")
    resumed = desk.fork(*ending["go_on"].split()[1:], *never)
    wait_until(lambda: desk.status()["state"] == "open")
    assert desk.process(*command.split()).returncode == 0
    resumed.communicate(timeout=60)
    assert (resumed.returncode, len(desk.rows())) == (0, 60)


def test_the_deadline_sends_away_who_joined(slow_desk: Desk) -> None:
    run = slow_desk.fork("run", "job.yaml", "--no-prefect", *JOINED)
    wait_until(lambda: prepared(slow_desk))
    worker = slow_desk.start("worker", "small", "--name", "one")
    wait_until(works(slow_desk, "one"))
    run.send_signal(signal.SIGTERM)
    _, stderr = run.communicate(timeout=60)
    assert run.returncode == 75
    assert "workers that joined go on" in stderr
    assert worker.poll() is None, "a driver that stops leaves them at work"

    past = datetime.now(UTC).isoformat()
    late = slow_desk.shunt("resume", "small", "--set", f"limits.deadline={past}")
    assert late.returncode == 4, late.stderr
    _, said = worker.communicate(timeout=60)
    assert worker.returncode == 0
    assert "because the run was cancelled; what it generated is saved" in said
    assert node(slow_desk, "one")["unsaved_tokens"] == 0


def test_a_worker_that_cannot_work_says_why_in_a_sentence(desk: Desk, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    job = desk.job | {"fleet": {"kind": "joined"}}
    job["model"]["path"] = str(model)
    (desk.directory / "job.yaml").write_text(yaml.safe_dump(job))
    run = desk.fork("run", "job.yaml", "--no-prefect")
    wait_until(lambda: prepared(desk))
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text('{"hidden_size": 1}')

    def refused(*words: str) -> tuple[int, str]:
        process = desk.process("worker", *words)
        assert process.stdout == ""
        (line,) = process.stderr.splitlines()
        return process.returncode, line

    assert refused("nothing")[0] == 2
    code, line = refused("small", "--store", str(tmp_path / "away"))
    assert (code, "is no directory here" in line) == (2, True)
    code, line = refused("small", "--store", "s3://b/p", "--endpoint-url", "http://127.0.0.1:9")
    assert (code, "cannot be used" in line) == (2, True)
    code, line = refused("small", "--model", str(other))
    assert (code, "not the one with which its rows were begun" in line) == (78, True)
    assert refused("small", "--name", "a.b")[0] == 2

    moved = tmp_path / "moved"
    os.rename(model, moved)
    worker = desk.process("worker", "small", "--model", str(moved))
    assert worker.returncode == 0, worker.stderr
    run.communicate(timeout=60)
