"""A fleet under a trace: never more than the trace has, the youngest go first, all is counted."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from shunt.drill.trace import Trace
from shunt.drill.traced_fleet import FOREVER_S, TracedFleet, Usage
from shunt.fleet.protocol import FleetNode, NotLaunched, one_after_another
from shunt.fleet.reconcile import Reconciler


@dataclass
class Machines:
    """A fleet whose nodes end as soon as they are interrupted, unless they drain."""

    drains: bool = False
    nodes_: dict[str, FleetNode] = field(default_factory=dict)
    interrupted: list[tuple[str, float | None]] = field(default_factory=list)

    def nodes(self) -> Sequence[FleetNode]:
        return list(self.nodes_.values())

    def launch(self, slot: str) -> str:
        node_id = f"node-{len(self.nodes_)}"
        self.nodes_[node_id] = FleetNode(node_id, slot, None)
        return node_id

    def launch_many(self, slots: Sequence[str]) -> Iterator[tuple[str, str | NotLaunched]]:
        return one_after_another(self.launch, slots)

    def vacate(self, node_id: str) -> None:
        raise NotImplementedError

    def interrupt(self, node_id: str, *, notice_s: float | None) -> None:
        self.interrupted.append((node_id, notice_s))
        if not self.drains:
            self.nodes_[node_id] = FleetNode(node_id, self.nodes_[node_id].slot, -9)

    def terminate(self) -> None:
        for node_id, node in self.nodes_.items():
            self.nodes_[node_id] = FleetNode(node_id, node.slot, node.exit_code or 0)


class Stand:
    def __init__(self, trace: Trace, *, unnoticed: float = 0.0) -> None:
        self.now_s = 0.0
        self.machines = Machines()
        self.usage = Usage()
        self.fleet = TracedFleet(
            fleet=self.machines,
            trace=trace,
            now_s=lambda: self.now_s,
            notice_s=2.0,
            unnoticed=unnoticed,
            rng=random.Random(0),
            usage=self.usage,
        )
        self.reconciler = Reconciler(
            fleet=self.fleet,
            slots=[f"worker-{n}" for n in range(3)],
            max_crashes=3,
            monotonic=lambda: self.now_s,
            now=lambda: datetime(2026, 3, 1, tzinfo=UTC),
            tell=lambda _: None,
        )

    @property
    def living(self) -> list[str]:
        return [n.node_id for n in self.machines.nodes() if n.exit_code is None]


def test_the_reconciler_follows_the_trace() -> None:
    """One node, three, one, none, two: at every second at most so many, and soon so many."""
    trace = Trace((0.0, 100.0, 200.0, 300.0, 400.0), (1, 3, 1, 0, 2))
    stand = Stand(trace)
    for second in range(500):
        stand.now_s = float(second)
        stand.reconciler.step(second)
        assert len(stand.living) <= trace.available(stand.now_s)
        if second % 100 >= 60:
            assert len(stand.living) == trace.available(stand.now_s)
    assert stand.usage.interruptions == 3


def test_the_youngest_go_first_and_are_told() -> None:
    stand = Stand(Trace((0.0, 10.0), (3, 1)))
    for number in range(3):
        stand.now_s = float(number)
        stand.fleet.launch(f"worker-{number}")
    stand.now_s = 10.0
    stand.fleet.nodes()
    assert stand.machines.interrupted == [("node-2", 2.0), ("node-1", 2.0)]
    stand.fleet.nodes()
    assert len(stand.machines.interrupted) == 2


def test_a_node_that_drains_is_told_once_and_its_place_may_be_taken() -> None:
    """It lives until its notice ends, but the trace's node is another by then."""
    stand = Stand(Trace((0.0, 10.0, 11.0), (1, 0, 1)))
    stand.machines.drains = True
    stand.fleet.launch("worker-0")
    for second in (10.0, 11.0, 12.0):
        stand.now_s = second
        stand.fleet.nodes()
    assert stand.machines.interrupted == [("node-0", 2.0)]
    assert stand.fleet.launch("worker-1") == "node-1"


def test_without_a_notice() -> None:
    stand = Stand(Trace((0.0, 10.0), (1, 0)), unnoticed=1.0)
    stand.fleet.launch("worker-0")
    stand.now_s = 10.0
    stand.fleet.nodes()
    assert stand.machines.interrupted == [("node-0", None)]


def test_a_launch_that_the_trace_has_no_room_for_says_when_it_changes() -> None:
    stand = Stand(Trace((0.0, 50.0), (1, 2)))
    stand.fleet.launch("worker-0")
    with pytest.raises(NotLaunched) as refused:
        stand.fleet.launch("worker-1")
    assert refused.value.retry_after_s == 50.0
    stand.now_s = 60.0
    stand.fleet.launch("worker-1")
    with pytest.raises(NotLaunched) as refused:
        stand.fleet.launch("worker-2")
    assert refused.value.retry_after_s == FOREVER_S


def test_usage_counts_every_second_of_every_node() -> None:
    """Two nodes from 0, one taken at 100 s, the other ended with the fleet at 250 s."""
    stand = Stand(Trace((0.0, 100.0), (2, 1)))
    stand.fleet.launch("worker-0")
    stand.fleet.launch("worker-1")
    stand.now_s = 30.0
    stand.fleet.nodes()
    assert stand.usage.node_s == 60.0
    stand.now_s = 100.0
    stand.fleet.nodes()
    stand.now_s = 250.0
    stand.fleet.terminate()
    assert stand.usage.node_s == 350.0
