"""A run under fire: started, killed at random, started again, looked at."""

import json
import os
import random
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from shunt.testing.processes import descendants, is_running
from tests.command_process import CommandProcess

REPOSITORY = Path(__file__).resolve().parent.parent.parent


def lay_out(directory: Path, rows: Sequence[Mapping[str, Any]], job: Mapping[str, Any]) -> Path:
    """Write the rows and the job over them; returns the job file."""
    directory.mkdir(parents=True)
    (directory / "prompts.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    path = directory / "job.yaml"
    path.write_text(yaml.safe_dump({"input": {"path": "prompts.jsonl"}, **job}))
    return path


def start(job: Path) -> CommandProcess:
    return _shunt(job, "run", str(job), "--no-prefect")


def _shunt(job: Path, *arguments: str) -> CommandProcess:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return CommandProcess(arguments, directory=job.parent, environment=environment)


def run_with_kills(
    job: Path,
    rng: random.Random,
    *,
    kills: int,
    due: Callable[[], bool],
    may_die: Callable[[int], bool] = lambda _pid: True,
    limit_s: float = 900.0,
) -> int:
    """Start the job until it ends well; whenever `due`, SIGKILL the driver or one below it.

    `may_die` chooses among the processes below the driver. Returns how many kills there were.
    """
    driver = start(job)
    seen: set[int] = set()
    done = 0
    deadline_s = time.monotonic() + limit_s
    while driver.poll() != 0:
        assert time.monotonic() < deadline_s, "the run does not end"
        if driver.returncode is not None:
            driver = start(job)
        if done < kills and due():
            below = descendants(driver.pid)
            seen |= set(below)
            os.kill(rng.choice([driver.pid, *filter(may_die, below)]), signal.SIGKILL)
            done += 1
        time.sleep(0.05)
    wait_until_gone(seen)
    return done


def after_pauses(rng: random.Random, pause_s: float) -> Callable[[], bool]:
    """Due after a third of `pause_s` or up to all of it, over and over."""
    until_s = time.monotonic() + rng.uniform(0.3, 1.0) * pause_s

    def due() -> bool:
        nonlocal until_s
        if time.monotonic() < until_s:
            return False
        until_s = time.monotonic() + rng.uniform(0.3, 1.0) * pause_s
        return True

    return due


def after_saves(rng: random.Random, job: Path) -> Callable[[], bool]:
    """Due up to a second after new tokens were saved."""
    known = 0

    def due() -> bool:
        nonlocal known
        saved = _num_segments(job)
        if saved == known:
            return False
        time.sleep(rng.uniform(0.0, 1.0))
        known = _num_segments(job)
        return True

    return due


def _num_segments(job: Path) -> int:
    return len(list(job.parent.glob("runs/**/segments/**/*")))


def wait_until_gone(pids: set[int]) -> None:
    """Workers of a killed driver drain and leave; none may outlive that."""
    deadline_s = time.monotonic() + 30
    while left := [pid for pid in pids if is_running(pid)]:
        assert time.monotonic() < deadline_s, f"left behind: {left}"
        time.sleep(0.2)


def rows_of(directory: Path) -> list[dict[str, Any]]:
    """Result rows without what tells how they came about."""
    (path,) = directory.glob("results/*/results.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        for column in ("resumption", "resume_reason", "num_resumes"):
            del row[column]
    return rows


def verify(job: Path, run_arguments: Sequence[str]) -> None:
    """The proof of the command line."""
    verifying = _shunt(job, "verify", *run_arguments)
    told, error = verifying.communicate(timeout=120)
    assert verifying.returncode == 0, told + error
