"""Reconcile: the fleet that is wanted minus the fleet that is, in one function.

First launch, repair after an interruption and giving up are the same step. It keeps no state of its
own that a new controller could not do without: counts of failures only slow it down.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from shunt.event import Event, EventKind
from shunt.fleet.protocol import Fleet, FleetNode, NotLaunched

EXIT_DONE = 0
EXIT_DRAINED = 75
EXIT_FENCED = 76
_EXPECTED_EXITS = (EXIT_DONE, EXIT_DRAINED, EXIT_FENCED)

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
    losses: int = 0
    refusals: int = 0
    """Launches refused in a row for want of capacity."""
    launch_at_s: float = 0.0


@dataclass(slots=True)
class Reconciler:
    """Holds a fleet at one living node per slot until every slot's worker says that it is done."""

    fleet: Fleet
    slots: Sequence[str]
    max_crashes: int
    monotonic: Callable[[], float]
    now: Callable[[], datetime]
    tell: Callable[[Event], None]
    interruptions: Sequence[PlannedInterruption] = ()
    num_lost: int = 0
    """Nodes that went before their work was done, drained ones included."""
    _slots: dict[str, _Slot] = field(default_factory=dict[str, _Slot])
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

    def step(self, progress: int) -> None:
        """One pass. `progress` is any number that grows as the run gets on (tokens, rows)."""
        if progress > self._progress:
            self._progress = progress
            for slot in self._slots.values():
                slot.crashes = slot.losses = 0
        self._interrupt()
        observed = {node.node_id: node for node in self.fleet.nodes()}
        self._adopt(observed.values())
        for name, slot in self._slots.items():
            node = observed.get(slot.node_id) if slot.node_id else None
            if node is not None and node.exit_code is not None:
                self._ended(slot, node)
            if slot.node_id is None and self._wanted(slot):
                self._launch(name, slot)

    def _adopt(self, observed: Iterable[FleetNode]) -> None:
        """Take over what an earlier controller of the run launched, living or done."""
        for node in observed:
            slot = self._slots.get(node.slot)
            if slot is None or slot.node_id is not None:
                continue
            if node.exit_code is None:
                slot.node_id = node.node_id
            elif node.exit_code == EXIT_DONE:
                slot.finished = True

    def _launch(self, name: str, slot: _Slot) -> None:
        try:
            slot.node_id = self.fleet.launch(name)
        except NotLaunched as refusal:
            slot.refusals += 1
            backoff_s = min(_MAX_BACKOFF_S, 2.0 ** min(slot.refusals - 1, 10))
            slot.launch_at_s = self.monotonic() + max(refusal.retry_after_s, backoff_s)
            self._tell(EventKind.NOT_LAUNCHED, "", str(refusal))
            return
        slot.refusals = 0
        self._tell(EventKind.WORKER_STARTED, slot.node_id, f"in slot {name}")

    def _wanted(self, slot: _Slot) -> bool:
        if slot.finished or self._given_up(slot):
            return False
        return self.monotonic() >= slot.launch_at_s

    def _given_up(self, slot: _Slot) -> bool:
        return slot.node_id is None and slot.crashes > self.max_crashes

    def _ended(self, slot: _Slot, node: FleetNode) -> None:
        assert node.exit_code is not None
        slot.node_id = None
        if node.exit_code == EXIT_DONE:
            slot.finished = True
            self._tell(EventKind.WORKER_ENDED, node.node_id, "done: no shard is left")
            return
        self.num_lost += 1
        slot.losses += 1
        slot.crashes += node.exit_code > 0 and node.exit_code not in _EXPECTED_EXITS
        surplus = slot.losses - _FREE_LOSSES
        wait_s = min(_MAX_BACKOFF_S, 2.0 ** (surplus - 1)) if surplus > 0 else 0.0
        slot.launch_at_s = self.monotonic() + wait_s
        self._tell(EventKind.INTERRUPTED, node.node_id, _how_it_ended(node.exit_code))

    def _interrupt(self) -> None:
        elapsed_s = self.monotonic() - self._started_s
        ordered = sorted(self.interruptions, key=lambda planned: planned.after_s)
        due = [planned for planned in ordered if planned.after_s <= elapsed_s]
        for planned in due[self._interrupted :]:
            node_id = self._slots[planned.slot].node_id
            if node_id is not None:
                self.fleet.interrupt(node_id, notice_s=planned.notice_s)
        self._interrupted = len(due)

    def _tell(self, kind: EventKind, node_id: str, detail: str) -> None:
        self.tell(Event(at=self.now(), kind=kind, node_id=node_id, detail=detail))


def _how_it_ended(exit_code: int) -> str:
    if exit_code < 0:
        return f"killed by signal {-exit_code}"
    reasons = {EXIT_DRAINED: "drained: all its tokens are saved", EXIT_FENCED: "fenced"}
    return reasons.get(exit_code, f"failed with exit code {exit_code}; see its log")
