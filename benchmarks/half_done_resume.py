"""How soon a half-done run of a million rows generates again after everything was killed.

The deterministic engine generates one token per row, so that the time is that of finding the run,
its open shards and their saved rows, not of a model. The run is killed (SIGKILL, all of it) once
half of its shards are done, and started again by the same command. The lease term is the default:
shards that were held are waited for, others are taken at once.

    python -m benchmarks.half_done_resume [rows]
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from benchmarks.report import Row, write
from shunt.testing.processes import descendants

REPOSITORY = Path(__file__).resolve().parent.parent
NUM_ROWS = 1_000_000
ROWS_PER_SHARD = 2_000
REPEATS = 3
POLL_S = 0.05
DONE = "runs/runs/*/done/*"
SEGMENTS = "runs/runs/*/shards/*/segments/*"


def main() -> int:
    """Kill and start again, as often as REPEATS says; print and write."""
    num_rows = int(sys.argv[1]) if len(sys.argv) > 1 else NUM_ROWS
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        job = _write_job(directory, num_rows)
        first_done_s: list[float] = []
        first_token_s: list[float] = []
        for repeat in range(REPEATS + 1):
            done, segments = Count(directory, DONE), Count(directory, SEGMENTS)
            started = time.perf_counter()
            driver = _start(job)
            segments.wait_for(segments.first + 1, driver)
            first_token_s.append(time.perf_counter() - started)
            done.wait_for(done.first + 1, driver)
            first_done_s.append(time.perf_counter() - started)
            if repeat == 0:
                done.wait_for(num_rows // ROWS_PER_SHARD // 2, driver)
            _kill(driver)
        label = f"{num_rows:,} rows, half done"
        write(
            "half_done_resume",
            [
                _row(f"{label}: first new segment", first_token_s),
                _row(f"{label}: first new shard done", first_done_s),
            ],
        )
    return 0


def _row(metric: str, seconds: list[float]) -> Row:
    """The first start prepared the dataset; it is the reference."""
    first, again = seconds[0], seconds[1:]
    return Row(metric, statistics.median(again), "s", (min(again), max(again)), first)


def _write_job(directory: Path, num_rows: int) -> Path:
    with (directory / "prompts.jsonl").open("w") as file:
        for index in range(num_rows):
            file.write(json.dumps({"id": f"row-{index}", "prompt": f"What is {index}?"}) + "\n")
    job = {
        "name": "half",
        "model": {
            "path": "none",
            "engine_kind": "fake",
            "engine": {"max_num_seqs": 512},
        },
        "input": {"path": "prompts.jsonl"},
        "sampling": {"max_tokens": 1},
        "store": {"uri": "runs"},
        "shard_prompts": ROWS_PER_SHARD,
    }
    path = directory / "job.yaml"
    path.write_text(yaml.safe_dump(job))
    return path


def _start(job: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "flows", "run", str(job), "--no-prefect"],
        cwd=job.parent,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.DEVNULL,
    )


class Count:
    """Objects of one kind in the store, now and later."""

    def __init__(self, directory: Path, pattern: str) -> None:
        self._directory, self._pattern = directory, pattern
        self.first = self._now()

    def wait_for(self, number: int, driver: "subprocess.Popen[bytes]") -> None:
        """Raises `RuntimeError` when the run ends before."""
        while self._now() < number:
            if driver.poll() is not None:
                raise RuntimeError(f"the run ended early, exit code {driver.returncode}")
            time.sleep(POLL_S)

    def _now(self) -> int:
        return sum(1 for _ in self._directory.glob(self._pattern))


def _kill(driver: "subprocess.Popen[bytes]") -> None:
    victims = [driver.pid, *descendants(driver.pid)]
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    driver.wait()


if __name__ == "__main__":
    sys.exit(main())
