"""A node whose run has a cost limit leaves when nobody keeps that limit any more."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from shunt import keys
from shunt.fleet.worker_exit import WorkerExit
from shunt.job.job import Job
from shunt.plan.seat import Seat
from shunt.run.driver import DRIVER_SILENT_S, DriverWatch
from shunt.testing.memory_store import MemoryStore
from workers.node.node import Node
from workers.node.part_process import NodeSetting, PartProcess
from workers.node.parts import Part
from workers.node.replicas import Replica, replicas_of

RUN = "r-1"


@dataclass
class Clock:
    """Time that passes when a node sleeps; the driver beats as long as it is told to."""

    store: MemoryStore
    beats_until_s: float
    now_s: float = 0.0

    def sleep(self, seconds: float) -> None:
        self.now_s += max(seconds, 20.0)
        assert self.now_s < 3 * DRIVER_SILENT_S + self.beats_until_s, "it should have left"
        if self.now_s < self.beats_until_s:
            self.store.put(keys.driver_beat(RUN), str(self.now_s).encode())


@dataclass
class Working:
    """A part that works until it is told to leave."""

    part: Part | Replica
    lives: bool = True
    done: bool = False
    crash: int = 0
    left: list[bool] = field(default_factory=list[bool])

    def step(self) -> None: ...

    def leave(self) -> None:
        self.lives = False

    def kill(self) -> None: ...


def node(clock: Clock, *, watched: bool) -> Node:
    own = Seat(node_id="n", slot="s", address="127.0.0.1")
    model, source = {"path": "fake", "engine_kind": "fake"}, {"path": "in.jsonl"}
    job = Job.model_validate({"name": "r", "model": model, "input": source})
    setting = NodeSetting(clock.store, RUN, job, own, [], {}, 2, lambda: clock.now_s)
    driver = DriverWatch(clock.store, RUN, lambda: clock.now_s) if watched else None

    def process_of(part: Part | Replica) -> PartProcess:
        return Working(part)  # pyright: ignore[reportReturnType]

    return Node(
        setting=setting,
        process_of=process_of,
        now=lambda: datetime(2026, 1, 1, tzinfo=UTC),
        monotonic=lambda: clock.now_s,
        sleep=clock.sleep,
        replicas=replicas_of(2, 1, {}),
        driver=driver,
    )


@pytest.mark.parametrize("beats_until_s", [0.0, 4000.0])
def test_it_drains_once_the_driver_is_silent(beats_until_s: float) -> None:
    clock = Clock(MemoryStore(), beats_until_s)
    leaving = node(clock, watched=True)
    assert leaving.run() is WorkerExit.DRAINED
    assert "who keeps its cost limit, is silent" in leaving.leaving
    assert clock.now_s >= beats_until_s + DRIVER_SILENT_S


def test_a_node_without_a_limit_takes_no_notice() -> None:
    clock = Clock(MemoryStore(), beats_until_s=0.0)
    with pytest.raises(AssertionError, match="should have left"):
        node(clock, watched=False).run()
