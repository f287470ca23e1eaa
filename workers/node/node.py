"""A node: it runs its parts of the newest plan, or its replicas, and says that it lives."""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from shunt.fleet.worker_exit import WorkerExit
from shunt.plan.kept_plan import newest_version, read_plan
from shunt.plan.seat import take_seat
from shunt.run.cancellation import is_cancelled
from shunt.run.driver import DRIVER_SILENT_S, DriverWatch
from shunt.run.node_status import HEARTBEAT_S, NodeState, NodeStatus, write_status
from shunt.store.patience import AWAY
from shunt.store.protocol import Store
from workers.node.part_process import NodeSetting, PartProcess
from workers.node.parts import Part, parts_of
from workers.node.replicas import Replica

TICK_S = 0.5
PLAN_POLL_S = 5.0

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Node:
    """One thread runs it; `told_to_leave` may be called from any."""

    setting: NodeSetting
    process_of: Callable[[Part | Replica], PartProcess]
    now: Callable[[], datetime]
    monotonic: Callable[[], float]
    sleep: Callable[[float], None]
    replicas: Sequence[Replica] = ()
    """What it runs where the run has no plan."""
    driver: DriverWatch | None = None
    """Of a node that costs money, in a run with a limit to what it may cost."""
    leaving: str = ""
    """Why it leaves, once it does."""
    _started_at: datetime = field(init=False)
    _version: int = 0
    _wanted: list[Part | Replica] = field(default_factory=list[Part | Replica])
    _processes: list[PartProcess] = field(default_factory=list[PartProcess])
    _state: NodeState = NodeState.STARTING
    _next_beat_s: float = 0.0
    _next_plan_s: float = 0.0
    _seated: bool = False

    def __post_init__(self) -> None:
        self._started_at = self.now()
        self._wanted = list(self.replicas)

    def told_to_leave(self, reason: str) -> None:
        """Drain from now on. May be called more than once."""
        if not self.leaving:
            log.info("leaving reason=%s", reason)
            self.leaving = reason

    def run(self) -> WorkerExit:
        """Until the work is done, a part fails, or we are told to leave and everything has."""
        code: WorkerExit | None = None
        try:
            while code is None:
                self._step()
                code = self._code()
                if code is None:
                    self.sleep(TICK_S)
        finally:
            for process in self._processes:
                process.kill()
        self._tell(NodeState.ENDED, code)
        return code

    def _step(self) -> None:
        """A store that is not to be reached is asked again; what runs goes on."""
        self._ask_store(self._look_at_plan)
        self._settle_parts()
        for process in self._processes:
            self._ask_store(process.step)
        if self.leaving or any(process.crash for process in self._processes):
            for process in self._processes:
                process.leave()
        state = NodeState.DRAINING if self.leaving else NodeState.RUNNING
        if state is not self._state or self.monotonic() >= self._next_beat_s:
            self._state, self._next_beat_s = state, self.monotonic() + HEARTBEAT_S
            self._tell(state)

    def _ask_store(self, work: Callable[[], None]) -> None:
        try:
            work()
        except AWAY as error:
            log.warning("store not reached: %s", error)

    def _look_at_plan(self) -> None:
        if self.monotonic() < self._next_plan_s or self.leaving:
            return
        self._next_plan_s = self.monotonic() + PLAN_POLL_S
        store, run_id = self.setting.store, self.setting.run_id
        if not self.replicas:
            self._follow_plan(store, run_id)
        if is_cancelled(store, run_id):
            self.told_to_leave("the run was cancelled")
        if self.driver is not None and self.driver.silent_s() >= DRIVER_SILENT_S:
            self.told_to_leave("the run's driver, who keeps its cost limit, is silent")

    def _follow_plan(self, store: Store, run_id: str) -> None:
        if not self._seated:
            take_seat(store, run_id, self.setting.own)
            self._seated = True
        version = newest_version(store, run_id)
        if version > self._version:
            self._wanted = [*parts_of(read_plan(store, run_id, version), self._slot)]
            self._version = version
            log.info("plan %d has %d parts for %s", version, len(self._wanted), self._slot)

    def _settle_parts(self) -> None:
        """Parts that the plan no longer has go first: they hold the devices of the new ones."""
        for process in self._processes:
            if not any(process.part.like(part) for part in self._wanted):
                process.leave()
        kept = [p for p in self._processes if p.lives or self._is_wanted(p)]
        self._processes = kept
        if self.leaving or not all(map(self._is_wanted, kept)):
            return
        for part in self._wanted:
            if not any(process.part.like(part) for process in kept):
                self._processes.append(self.process_of(part))

    def _is_wanted(self, process: PartProcess) -> bool:
        return any(process.part.like(part) for part in self._wanted)

    def _code(self) -> WorkerExit | None:
        """How to end, once nothing runs any more."""
        if any(process.lives for process in self._processes):
            return None
        if any(process.crash for process in self._processes):
            return WorkerExit.BUG
        if self.leaving:
            return WorkerExit.DRAINED
        finished = self._processes and all(process.done for process in self._processes)
        return WorkerExit.DONE if finished else None

    @property
    def _slot(self) -> str:
        return self.setting.own.slot

    def _tell(self, state: NodeState, exit_code: WorkerExit | None = None) -> None:
        status = NodeStatus(
            node_id=self.setting.own.node_id,
            slot=self._slot,
            pid=os.getpid(),
            state=state,
            done_parts=tuple(p.part.number for p in self._processes if p.part.heads and p.done),
            started_at=self._started_at,
            updated_at=self.now(),
            exit_code=exit_code,
        )
        try:
            write_status(self.setting.store, self.setting.run_id, status)
        except AWAY as error:
            log.warning("status not stored: %s", error)
