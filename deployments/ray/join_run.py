"""Workers that join a run as tasks of a Ray cluster, each in a placement group of its own.

    ray job submit --working-dir . -- python deployments/ray/join_run.py reviews \\
        --store s3://bucket/runs --workers 4 --gpus 1

Every node needs the worker environment at the same path (`--python`); Ray's own environment needs
nothing of ours. A task that Ray cancels or whose node is drained has its worker save and leave; a
worker that was told to leave, or failed, is started again, somewhere else where need be.
"""

import argparse
import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

DONE, FAILED, USAGE, DRAINED, UNFIT = 0, 1, 2, 75, 78
"""As `shunt worker` ends (docs/clusters.md)."""
_LOOK_S = 0.2


def attend(argv: Sequence[str], *, environment: Mapping[str, str], limit_s: float) -> int:
    """Run a worker to its end; returns its exit code. Whatever ends us ends it: it is told to
    leave, and has `limit_s` for it. It drains, too, when we die without a word, as it watches the
    pipe whose other end only we hold.
    """
    worker = subprocess.Popen(
        argv, stdin=subprocess.PIPE, env=dict(environment), start_new_session=True
    )
    try:
        while (code := worker.poll()) is None:
            time.sleep(_LOOK_S)  # a wait for the process would not see Ray's KeyboardInterrupt
        return code
    except BaseException:  # Ray cancels by KeyboardInterrupt, and ends a process by SystemExit
        worker.terminate()
        try:
            worker.wait(limit_s)
        except subprocess.TimeoutExpired:
            worker.kill()
        raise


def worker_argv(options: argparse.Namespace) -> list[str]:
    return [
        *(options.python, "-m", "workers.join", options.run, "--store", options.store),
        *("--drain-limit-s", str(options.drain_limit_s), "--watch-parent"),
    ]


def again(code: int, tries_left: int) -> bool:
    """Whether a worker that ended so is started once more. Killed by a signal (negative) or lost
    with its node is as good as told to leave."""
    if code in (DONE, USAGE, UNFIT):
        return False
    return code == DRAINED or code < 0 or tries_left > 0


class Tasks:
    """The cluster's side: a placement group for each worker, and the task that runs in it."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.ray: Any = importlib.import_module("ray")  # of Ray's own environment, not of ours
        self._groups: Any = importlib.import_module("ray.util.placement_group")
        self._placing: Any = importlib.import_module("ray.util.scheduling_strategies")
        self.ray.init()
        self._options = options
        bundle = {"CPU": options.cpus, **({"GPU": options.gpus} if options.gpus else {})}
        self._places = [
            self._groups.placement_group([bundle], strategy="STRICT_PACK")
            for _ in range(options.workers)
        ]
        self.running: dict[Any, tuple[int, int]] = {}
        """By its reference: the number of the worker, and how often it may fail."""

    def start(self, number: int, tries_left: int) -> None:
        options, code = self._options, os.environ.get("SHUNT_CODE", str(Path.cwd()))

        def task() -> int:
            argv, environment = worker_argv(options), {**os.environ, "PYTHONPATH": code}
            return attend(argv, environment=environment, limit_s=options.drain_limit_s)

        place = self._placing.PlacementGroupSchedulingStrategy(placement_group=self._places[number])
        needs = {"num_cpus": options.cpus, "num_gpus": options.gpus, "max_retries": -1}
        remote = self.ray.remote(task).options(scheduling_strategy=place, **needs)
        self.running[remote.remote()] = (number, tries_left)

    def next_ended(self) -> tuple[int, int, int]:
        """Number, tries left and exit code of a worker, as soon as one has ended."""
        (ended,), _ = self.ray.wait(list(self.running), num_returns=1)
        number, tries_left = self.running.pop(ended)
        try:
            return number, tries_left, self.ray.get(ended)
        except self.ray.exceptions.RayError as error:
            _say(f"worker {number}: {error}")
            return number, tries_left, FAILED

    def close(self) -> None:
        """Tell those that still work to leave, and wait for them."""
        for reference in self.running:
            self.ray.cancel(reference)
        if self.running:
            limit_s = self._options.drain_limit_s
            self.ray.wait(list(self.running), num_returns=len(self.running), timeout=limit_s)
        for place in self._places:
            self._groups.remove_placement_group(place)


def main(argv: Sequence[str]) -> int:
    """Keep the workers at it until the run is done; returns the exit code of the job."""
    options = _options(argv)
    tasks = Tasks(options)
    signal.signal(signal.SIGTERM, _stopped)
    codes: list[int] = []
    try:
        for number in range(options.workers):
            tasks.start(number, options.tries)
        while tasks.running:
            number, tries_left, code = tasks.next_ended()
            _say(f"worker {number} ended with {code}")
            if again(code, tries_left) and DONE not in codes:
                tasks.start(number, tries_left - (code == FAILED))
            else:
                codes.append(code)
    finally:
        tasks.close()
    return DONE if DONE in codes else max(codes, default=FAILED)


def _stopped(_number: int, _frame: object) -> None:
    raise SystemExit(DRAINED)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Workers that join a run, as tasks of a Ray cluster."
    )
    parser.add_argument("run", metavar="RUN", help="run id, or its unique beginning")
    parser.add_argument("--store", required=True, help="store of the run")
    parser.add_argument("--workers", type=int, default=1, help="pipelines, each on one machine")
    parser.add_argument("--gpus", type=int, default=1, help="of each: tensor times pipeline size")
    parser.add_argument("--cpus", type=int, default=4, help="of each")
    parser.add_argument("--python", default=".venv/worker/bin/python", help="worker environment")
    parser.add_argument("--tries", type=int, default=3, help="of a worker that fails")
    parser.add_argument("--drain-limit-s", type=float, default=80.0)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
