"""Reconcile: the fleet that is wanted minus the fleet that is, in one function.

First launch, repair after an interruption, a new plan and giving up are the same step. It keeps no
state of its own that a new controller could not do without: counts of failures only slow it down,
and a node that was leaving is found as a second one in its slot.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from shunt.fleet.protocol import Fleet, FleetNode, NotLaunched
from shunt.fleet.worker_exit import EXPECTED_EXITS, WorkerExit
from shunt.run.event import Event, EventKind

MAX_FAULTS = 2
"""A node of a slot that ends by our own fault is bought once more: the second proves it."""

LEAVING_S = 180.0
"""A node that was given notice is gone after 120 s; one that lives longer is one too many."""

_FREE_LOSSES = 3
_MAX_BACKOFF_S = 30.0
"""Nodes lost in a row, without any progress of the run between, that are replaced at once; then the
wait doubles from one second up to the maximum."""


@dataclass(frozen=True, slots=True)
class PlannedInterruption:
    """A node to be taken away on purpose: a drill on a local fleet."""

    after_s: float
    slot: str
    notice_s: float | None
    """None: without notice, as SIGKILL."""


@dataclass(slots=True)
class _Slot:
    node_id: str | None = None
    finished: bool = False
    crashes: int = 0
    """Exits of its workers by an error of ours, in a row, without progress of the run."""
    faults: int = 0
    """Nodes in a row that ended by what would end the next one too."""
    losses: int = 0
    refusals: int = 0
    """Launches refused in a row for want of capacity."""
    launch_at_s: float = 0.0


@dataclass(slots=True)
class Reconciler:
    """Holds a fleet at one living node per slot until every slot's worker says that it is done.

    A node that is leaving lives beside the one that replaces it, until it goes or is ended.
    """

    fleet: Fleet
    slots: Sequence[str]
    max_crashes: int
    monotonic: Callable[[], float]
    now: Callable[[], datetime]
    tell: Callable[[Event], None]
    interruptions: Sequence[PlannedInterruption] = ()
    affordable: Callable[[Sequence[str]], Sequence[str]] = lambda slots: slots
    """Which of the slots that need a node may get one now."""
    on_gone: Callable[[str], None] = lambda _node_id: None
    """Told of every node that was seen to have ended, and holds nothing any more."""
    num_lost: int = 0
    """Nodes that went before their work was done, drained ones included."""
    fault: str = ""
    """Of the last node that ended by what would end the next one too: the reason and the remedy."""
    _slots: dict[str, _Slot] = field(default_factory=dict[str, _Slot])
    _leaving: dict[str, float] = field(default_factory=dict[str, float])
    """By node: the instant at which it is ended, if it has not gone by then."""
    _progress: int = 0
    _started_s: float = 0.0
    _interrupted: int = 0

    def __post_init__(self) -> None:
        self._slots = {slot: _Slot() for slot in self.slots}
        self._started_s = self.monotonic()

    @property
    def done(self) -> bool:
        """Every worker has left because no shard was left."""
        return all(slot.finished for slot in self._slots.values())

    @property
    def failed(self) -> bool:
        """No node lives and none will be launched again, yet the work is not done."""
        return not self.done and all(
            slot.finished or self._given_up(slot) for slot in self._slots.values()
        )

    @property
    def holding(self) -> dict[str, str]:
        """The living node of each slot that has one, without those that are leaving."""
        return {name: slot.node_id for name, slot in self._slots.items() if slot.node_id}

    @property
    def leaving(self) -> frozenset[str]:
        """Nodes that go, and have not gone yet."""
        return frozenset(self._leaving)

    def leave(
        self, node_id: str, reason: str, *, within_s: float = LEAVING_S, crashed: bool = False
    ) -> bool:
        """The node goes: its slot gets another one at the next step. False where no slot has it."""
        for name, slot in self._slots.items():
            if slot.node_id == node_id:
                self._set_free(slot, node_id, within_s)
                self._lost(name, node_id, reason, crashed=crashed)
                return True
        return False

    @property
    def refused(self) -> frozenset[str]:
        """Places without a node whose last launch was refused."""
        return frozenset(
            name for name, slot in self._slots.items() if slot.node_id is None and slot.refusals
        )

    def release(self, node_id: str, reason: str) -> bool:
        """End a node that is not needed. Its place is empty, and nothing was lost. False where no
        slot has it."""
        for name, slot in self._slots.items():
            if slot.node_id == node_id:
                self._set_free(slot, node_id, 0.0)
                self._tell(EventKind.WORKER_ENDED, node_id, reason, name)
                return True
        return False

    def finish_empty(self) -> None:
        """No shard is left for places without a node: they are done with."""
        for slot in self._slots.values():
            slot.finished = slot.finished or slot.node_id is None

    def stay(self, name: str, node_id: str) -> None:
        """A node that was to leave keeps its place after all, where nobody else has it."""
        slot = self._slots.get(name)
        if slot is not None and slot.node_id is None and node_id in self._leaving:
            del self._leaving[node_id]
            slot.node_id, slot.refusals = node_id, 0

    def want(self, slots: Sequence[str]) -> None:
        """These slots from now on. Nodes of slots that are no longer wanted leave at once."""
        for name in set(self._slots) - set(slots):
            slot = self._slots.pop(name)
            if slot.node_id is not None:
                self._set_free(slot, slot.node_id, 0.0)
        for name in slots:
            self._slots.setdefault(name, _Slot())
        self.slots = slots

    def ask_again(self) -> None:
        """Do not wait any longer with launches that were refused: something has changed."""
        for slot in self._slots.values():
            if slot.refusals:
                slot.refusals, slot.launch_at_s = 0, 0.0

    def step(self, progress: int) -> None:
        """One pass. `progress` is any number that grows as the run gets on (tokens, rows)."""
        if progress > self._progress:
            self._progress = progress
            for slot in self._slots.values():
                slot.crashes = slot.losses = 0
        self._interrupt()
        observed = {node.node_id: node for node in self.fleet.nodes()}
        self._adopt(list(observed.values()))
        self._see_off(observed)
        for name, slot in self._slots.items():
            node = observed.get(slot.node_id) if slot.node_id else None
            if node is not None and node.exit_code is not None:
                self._ended(name, node)
        empty = [name for name, slot in self._slots.items() if self._wanted(slot)]
        for name, found in self.fleet.launch_many(self.affordable(empty)):
            self._launched(name, found)

    def _adopt(self, observed: Sequence[FleetNode]) -> None:
        """Take over what an earlier controller of the run launched, living or done.

        Of several living nodes of a slot the newest fills it; nobody wants the others.
        """
        known = {slot.node_id for slot in self._slots.values()} | self._leaving.keys()
        for node in reversed(observed):
            slot = self._slots.get(node.slot)
            if node.exit_code is None and node.node_id not in known:
                if slot is None or slot.node_id is not None:
                    self._leaving[node.node_id] = self.monotonic()
                else:
                    slot.node_id = node.node_id
            elif node.exit_code == WorkerExit.DONE and slot is not None and slot.node_id is None:
                slot.finished = True

    def _see_off(self, observed: Mapping[str, FleetNode]) -> None:
        """Tell of leaving nodes that are gone, and end those that stay too long."""
        for node_id, end_at_s in list(self._leaving.items()):
            node = observed.get(node_id)
            if node is None or node.exit_code is not None:
                del self._leaving[node_id]
                how = "not seen any more" if node is None else _how_it_ended(node.exit_code or 0)
                if node is not None:
                    self.on_gone(node_id)
                self._tell(EventKind.WORKER_ENDED, node_id, how)
            elif self.monotonic() >= end_at_s:
                self.fleet.interrupt(node_id, notice_s=None)

    def _set_free(self, slot: _Slot, node_id: str, within_s: float) -> None:
        slot.node_id = None
        self.fleet.vacate(node_id)
        self._leaving[node_id] = self.monotonic() + within_s

    def _launched(self, name: str, found: str | NotLaunched) -> None:
        slot = self._slots[name]
        if isinstance(found, NotLaunched):
            slot.refusals += 1
            backoff_s = min(_MAX_BACKOFF_S, 2.0 ** min(slot.refusals - 1, 10))
            slot.launch_at_s = self.monotonic() + max(found.retry_after_s, backoff_s)
            self._tell(EventKind.NOT_LAUNCHED, "", str(found), name)
            return
        slot.node_id, slot.refusals = found, 0
        self._tell(EventKind.WORKER_STARTED, found, f"in slot {name}", name)

    def _wanted(self, slot: _Slot) -> bool:
        if slot.node_id is not None or slot.finished or self._given_up(slot):
            return False
        return self.monotonic() >= slot.launch_at_s

    def _given_up(self, slot: _Slot) -> bool:
        hopeless = slot.crashes > self.max_crashes or slot.faults >= MAX_FAULTS
        return slot.node_id is None and hopeless

    def _ended(self, name: str, node: FleetNode) -> None:
        assert node.exit_code is not None
        slot = self._slots[name]
        slot.node_id = None
        if node.exit_code == WorkerExit.DONE:
            slot.finished = True
            self._tell(EventKind.WORKER_ENDED, node.node_id, _how_it_ended(WorkerExit.DONE), name)
            return
        self.on_gone(node.node_id)
        slot.faults = slot.faults + 1 if node.fault else 0
        if node.fault:
            self.fault = node.reason
        crashed = node.exit_code > 0 and node.exit_code not in EXPECTED_EXITS
        how = node.reason or _how_it_ended(node.exit_code)
        self._lost(name, node.node_id, how, crashed=crashed)

    def _lost(self, name: str, node_id: str, reason: str, *, crashed: bool) -> None:
        slot = self._slots[name]
        self.num_lost += 1
        slot.losses += 1
        slot.crashes += crashed
        surplus = slot.losses - _FREE_LOSSES
        wait_s = min(_MAX_BACKOFF_S, 2.0 ** (surplus - 1)) if surplus > 0 else 0.0
        slot.launch_at_s = self.monotonic() + wait_s
        self._tell(EventKind.INTERRUPTED, node_id, reason, name)

    def _interrupt(self) -> None:
        elapsed_s = self.monotonic() - self._started_s
        ordered = sorted(self.interruptions, key=lambda planned: planned.after_s)
        due = [planned for planned in ordered if planned.after_s <= elapsed_s]
        for planned in due[self._interrupted :]:
            node_id = self._slots[planned.slot].node_id
            if node_id is not None:
                self.fleet.interrupt(node_id, notice_s=planned.notice_s)
        self._interrupted = len(due)

    def _tell(self, kind: EventKind, node_id: str, detail: str, slot: str = "") -> None:
        self.tell(Event(at=self.now(), kind=kind, node_id=node_id, slot=slot, detail=detail))


def _how_it_ended(exit_code: int) -> str:
    if exit_code < 0:
        return f"killed by signal {-exit_code}"
    reasons: dict[int, str] = {
        WorkerExit.DONE: "done: no shard is left",
        WorkerExit.DRAINED: "drained: all its tokens are saved",
    }
    return reasons.get(exit_code, f"failed with exit code {exit_code}; see its log")
