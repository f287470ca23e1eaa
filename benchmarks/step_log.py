"""Schedulers that write down every step of the engine core: how full its batch was, and why not.

Named to vLLM by `scheduler_cls`, so that plain vLLM and a shunt worker are counted alike. A line of
the log is one step: seconds on the monotonic clock, sequences running and waiting after it was
scheduled, tokens scheduled, requests received so far, CPU seconds of the engine core so far.
"""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOG = "SHUNT_STEP_LOG"
"""Environment variable with the directory of the logs, one of each engine core."""


@dataclass(frozen=True, slots=True)
class Step:
    at_s: float
    running: int
    waiting: int
    tokens: int
    received: int
    cpu_s: float


@dataclass(frozen=True, slots=True)
class StepCounts:
    """Steps by what their batch was.

    `full`: as many sequences as `max_num_seqs`. Not full: `budget` used up the step's tokens,
    `memory` had no block left, `starved` had nothing waiting though requests were still to come,
    `tail` had nothing waiting as all had come.
    """

    full: int = 0
    budget: int = 0
    memory: int = 0
    starved: int = 0
    tail: int = 0

    @property
    def total(self) -> int:
        return self.full + self.budget + self.memory + self.starved + self.tail


def counted(scheduler: type[Any]) -> type[Any]:
    """`scheduler` with a log of its steps."""

    class Counted(scheduler):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._received = 0
            path = Path(os.environ[LOG]) / f"{os.getpid()}.steps"
            self._log = path.open("w", buffering=1)

        def add_request(self, request: Any) -> None:
            self._received += 1
            super().add_request(request)

        def schedule(self, *args: Any, **kwargs: Any) -> Any:
            output = super().schedule(*args, **kwargs)
            running, waiting = self.get_request_counts()
            step = (
                time.monotonic(),
                running,
                waiting,
                output.total_num_scheduled_tokens,
                self._received,
                time.process_time(),
            )
            if output.total_num_scheduled_tokens:
                self._log.write(json.dumps(step) + "\n")
            return output

    return Counted


def read_steps(directory: Path, since_s: float = 0.0) -> list[Step]:
    """The steps of all engine cores from an instant on."""
    lines = [line for path in directory.glob("*.steps") for line in path.read_text().splitlines()]
    steps = [Step(*json.loads(line)) for line in lines if line.endswith("]")]
    return sorted((step for step in steps if step.at_s >= since_s), key=lambda step: step.at_s)


def count(steps: list[Step], *, requests: int, max_num_seqs: int, budget: int) -> StepCounts:
    """How many steps were of which kind; `requests` is how many came in all since the first."""
    kinds: dict[str, int] = dict.fromkeys(("full", "budget", "memory", "starved", "tail"), 0)
    last = max((step.received for step in steps), default=0)
    assert steps == [] or last - steps[0].received <= requests
    for step in steps:
        kinds[_kind(step, last=last, max_num_seqs=max_num_seqs, budget=budget)] += 1
    return StepCounts(**kinds)


def _kind(step: Step, *, last: int, max_num_seqs: int, budget: int) -> str:
    if step.running >= max_num_seqs:
        return "full"
    if step.waiting:
        return "budget" if step.tokens >= budget else "memory"
    return "starved" if step.received < last else "tail"
