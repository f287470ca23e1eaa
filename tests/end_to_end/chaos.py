"""A run under fire: started, killed at random, started again, looked at."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from shunt.testing.processes import descendants, is_running

REPOSITORY = Path(__file__).resolve().parent.parent.parent


def lay_out(directory: Path, rows: Sequence[Mapping[str, Any]], job: Mapping[str, Any]) -> Path:
    """Write the rows and the job over them; returns the job file."""
    directory.mkdir(parents=True)
    (directory / "prompts.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    path = directory / "job.yaml"
    path.write_text(yaml.safe_dump({"input": {"path": "prompts.jsonl"}, **job}))
    return path


def start(job: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "flows", "run", str(job), "--no-prefect"],
        cwd=job.parent,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def run_with_kills(job: Path, rng: random.Random, *, kills: int, pause_s: float) -> int:
    """Start the job until it ends well; at random moments SIGKILL the driver or one below it."""
    done = 0
    driver = start(job)
    seen: set[int] = set()
    deadline_s = time.monotonic() + 900
    while True:
        assert time.monotonic() < deadline_s, "the run does not end"
        try:
            driver.wait(rng.uniform(0.3, 1.0) * pause_s if done < kills else 1.0)
        except subprocess.TimeoutExpired:
            if done < kills:
                below = descendants(driver.pid)
                seen |= set(below)
                victim = rng.choice([driver.pid, *below, *below])
                os.kill(victim, signal.SIGKILL)
                done += 1
            continue
        if driver.returncode == 0:
            break
        driver = start(job)
    wait_until_gone(seen)
    return done


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
    subprocess.run(
        [sys.executable, "-m", "flows", "verify", *run_arguments],
        cwd=job.parent,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        check=True,
        timeout=120,
    )
