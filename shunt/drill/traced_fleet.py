"""A fleet under a trace: no more nodes than the trace has, and what it takes is really taken.

It stands between the reconciler and a real fleet. Time is the trace's: the caller's clock may run
faster than the wall's, and then notices are shorter by as much.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from shunt.drill.trace import Trace
from shunt.fleet.protocol import Fleet, FleetNode, NotLaunched, one_after_another

FOREVER_S = 86400.0
"""When to ask again for a node that the trace will never have."""


@dataclass(slots=True)
class Usage:
    """What nodes cost and met, in seconds of the trace. One per drill, over all its fleets."""

    began_s: dict[str, float] = field(default_factory=dict[str, float])
    ended_s: dict[str, float] = field(default_factory=dict[str, float])
    interruptions: int = 0
    seen_s: float = 0.0
    """When somebody last looked at the nodes: until then at least, the living ones lived."""

    @property
    def node_s(self) -> float:
        """Seconds of all nodes; of those whose end nobody saw, until the last look."""
        ends = self.ended_s
        return sum(ends.get(node, self.seen_s) - began for node, began in self.began_s.items())


@dataclass(slots=True)
class TracedFleet:
    """Satisfies `shunt.fleet.protocol.Fleet` over another that does."""

    fleet: Fleet
    trace: Trace
    now_s: Callable[[], float]
    """Seconds of the trace since its start."""
    notice_s: float
    """Of the wall clock: how long before its end a node is told."""
    unnoticed: float
    """Share of the interruptions that come without a notice."""
    rng: random.Random
    usage: Usage
    _leaving: set[str] = field(default_factory=set[str])

    def nodes(self) -> Sequence[FleetNode]:
        self._take()
        return self._observed()

    def launch(self, slot: str) -> str:
        now_s = self.now_s()
        if len(self._staying()) >= self.trace.available(now_s):
            again_s = min(self.trace.next_change_s(now_s) - now_s, FOREVER_S)
            raise NotLaunched(slot, "the trace has no node", retry_after_s=again_s)
        node_id = self.fleet.launch(slot)
        self.usage.began_s.setdefault(node_id, now_s)
        return node_id

    def launch_many(self, slots: Sequence[str]) -> Iterator[tuple[str, str | NotLaunched]]:
        return one_after_another(self.launch, slots)

    def vacate(self, node_id: str) -> None:
        self.fleet.vacate(node_id)

    def interrupt(self, node_id: str, *, notice_s: float | None) -> None:
        self.fleet.interrupt(node_id, notice_s=notice_s)

    def terminate(self) -> None:
        self.fleet.terminate()
        self._observed()

    def _take(self) -> None:
        """Interrupt what the trace does not have any more, the youngest first."""
        staying = self._staying()
        surplus = len(staying) - self.trace.available(self.now_s())
        youngest = sorted(staying, key=lambda node_id: self.usage.began_s.get(node_id, 0.0))[::-1]
        for node_id in youngest[: max(0, surplus)]:
            noticed = self.rng.random() >= self.unnoticed
            self.fleet.interrupt(node_id, notice_s=self.notice_s if noticed else None)
            self._leaving.add(node_id)
            self.usage.interruptions += 1

    def _staying(self) -> list[str]:
        living = [node.node_id for node in self._observed() if node.exit_code is None]
        return [node_id for node_id in living if node_id not in self._leaving]

    def _observed(self) -> Sequence[FleetNode]:
        """The nodes; an end is dated when it is seen first."""
        nodes = self.fleet.nodes()
        self.usage.seen_s = self.now_s()
        for node in nodes:
            if node.exit_code is not None:
                self.usage.ended_s.setdefault(node.node_id, self.now_s())
        return nodes
