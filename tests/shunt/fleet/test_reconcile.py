"""Reconcile: one step serves first launch, repair, backing off and giving up."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import pytest

from shunt.fleet.protocol import FleetNode, NotLaunched, one_after_another
from shunt.fleet.reconcile import PlannedInterruption, Reconciler
from shunt.run.event import Event

SLOTS = ("worker-0", "worker-1")


class ScriptedFleet:
    """A fleet in memory whose nodes end when the test says so."""

    def __init__(self) -> None:
        self.exits: dict[str, int | None] = {}
        self.faults: dict[str, str] = {}
        """Why nodes ended, of those that ended by a fault of ours."""
        self.interrupted: list[tuple[str, float | None]] = []
        self.vacated: list[str] = []

    def nodes(self) -> list[FleetNode]:
        return [
            FleetNode(n, n.rsplit(".", 1)[0], code, self.faults.get(n, ""), n in self.faults)
            for n, code in self.exits.items()
        ]

    def launch(self, slot: str) -> str:
        node_id = f"{slot}.{len(self.exits)}"
        self.exits[node_id] = None
        return node_id

    def launch_many(self, slots: Sequence[str]) -> Iterator[tuple[str, str | NotLaunched]]:
        return one_after_another(self.launch, slots)

    def vacate(self, node_id: str) -> None:
        self.vacated.append(node_id)

    def interrupt(self, node_id: str, *, notice_s: float | None) -> None:
        self.interrupted.append((node_id, notice_s))

    def terminate(self) -> None:
        self.exits = dict.fromkeys(self.exits, -9)

    @property
    def living(self) -> list[str]:
        return [node_id for node_id, code in self.exits.items() if code is None]


class Bench:
    """A reconciler over a scripted fleet and a clock that the test turns."""

    def __init__(self, *interruptions: PlannedInterruption) -> None:
        self.fleet = ScriptedFleet()
        self.now_s = 0.0
        self.events: list[Event] = []
        self.gone: list[str] = []
        self.reconciler = Reconciler(
            fleet=self.fleet,
            slots=SLOTS,
            max_crashes=2,
            monotonic=lambda: self.now_s,
            now=lambda: datetime(2026, 1, 1, tzinfo=UTC),
            tell=self.events.append,
            on_gone=self.gone.append,
            interruptions=interruptions,
        )

    def end(self, code: int, slot: str = "worker-0") -> None:
        node_id = next(n for n in self.fleet.living if n.startswith(slot))
        self.fleet.exits[node_id] = code


def test_the_first_step_fills_every_slot_and_the_next_changes_nothing() -> None:
    bench = Bench()
    bench.reconciler.step(0)
    bench.reconciler.step(0)
    assert bench.fleet.living == ["worker-0.0", "worker-1.1"]


@pytest.mark.parametrize("code", [75, -9, -15])
def test_an_interrupted_node_is_replaced_at_once(code: int) -> None:
    bench = Bench()
    bench.reconciler.step(0)
    bench.end(code)
    bench.reconciler.step(0)
    assert len(bench.fleet.living) == 2
    assert bench.reconciler.num_lost == 1


def test_done_when_every_worker_says_so() -> None:
    bench = Bench()
    bench.reconciler.step(0)
    bench.end(0)
    bench.reconciler.step(0)
    assert not bench.reconciler.done
    bench.end(0, "worker-1")
    bench.reconciler.step(0)
    assert bench.reconciler.done
    assert bench.fleet.living == []


def test_crashes_without_progress_end_in_giving_up() -> None:
    bench = Bench()
    for _ in range(3):
        bench.reconciler.step(0)
        bench.end(1)
        bench.end(1, "worker-1")
        bench.now_s += 60
    bench.reconciler.step(0)
    assert bench.reconciler.failed
    assert bench.fleet.living == []


def test_progress_forgives_crashes() -> None:
    bench = Bench()
    for progress in range(10):
        bench.reconciler.step(progress)
        bench.end(1)
        bench.now_s += 60
    bench.reconciler.step(10)
    assert not bench.reconciler.failed
    assert len(bench.fleet.living) == 2


def test_kills_in_a_row_are_replaced_ever_more_slowly_but_never_given_up() -> None:
    bench = Bench()
    for _ in range(20):
        bench.reconciler.step(0)
        bench.end(-9)
        bench.reconciler.step(0)
        bench.now_s += 30
    bench.reconciler.step(0)
    assert len(bench.fleet.living) == 2
    bench.end(-9)
    bench.reconciler.step(0)
    assert len(bench.fleet.living) == 1
    assert not bench.reconciler.failed


def test_planned_interruptions_come_in_time_and_once() -> None:
    bench = Bench(
        PlannedInterruption(20, "worker-1", 5.0), PlannedInterruption(10, "worker-0", None)
    )
    for now_s in (0.0, 9.0, 10.0, 11.0, 20.0, 30.0):
        bench.now_s = now_s
        bench.reconciler.step(0)
    assert bench.fleet.interrupted == [("worker-0.0", None), ("worker-1.1", 5.0)]


def test_a_node_that_is_told_to_go_is_replaced_before_it_is_gone() -> None:
    bench = Bench()
    bench.reconciler.step(0)
    going = bench.fleet.living[0]

    assert bench.reconciler.leave(going, "notice")
    assert not bench.reconciler.leave(going, "notice"), "no slot has it any more"
    bench.reconciler.step(0)
    assert bench.fleet.vacated == [going]
    assert len(bench.fleet.living) == 3
    assert [event.kind.value for event in bench.events].count("interrupted") == 1

    bench.fleet.exits[going] = 75
    bench.reconciler.step(0)
    assert len(bench.fleet.living) == 2
    assert bench.events[-1].kind == "worker_ended"
    assert bench.reconciler.num_lost == 1


def test_a_node_that_was_told_to_go_and_stays_is_ended() -> None:
    bench = Bench()
    bench.reconciler.step(0)
    going = bench.fleet.living[0]
    bench.reconciler.leave(going, "notice", within_s=180.0)
    bench.now_s = 179.0
    bench.reconciler.step(0)
    assert bench.fleet.interrupted == []
    bench.now_s = 180.0
    bench.reconciler.step(0)
    assert bench.fleet.interrupted == [(going, None)]


def test_a_new_controller_keeps_the_newest_node_of_a_slot_and_ends_the_others() -> None:
    bench = Bench()
    bench.fleet.exits = {"worker-0.0": None, "worker-1.1": None, "worker-0.2": None}
    bench.reconciler.step(0)
    assert bench.reconciler.holding == {"worker-0": "worker-0.2", "worker-1": "worker-1.1"}
    assert bench.fleet.interrupted == [("worker-0.0", None)]
    assert len(bench.fleet.exits) == 3


def test_slots_that_are_no_longer_wanted_lose_their_node_and_new_ones_get_one() -> None:
    bench = Bench()
    bench.reconciler.step(0)
    bench.reconciler.want(["worker-1", "worker-2"])
    bench.reconciler.step(0)
    assert set(bench.reconciler.holding) == {"worker-1", "worker-2"}
    assert bench.fleet.interrupted == [("worker-0.0", None)]


def test_a_second_node_that_ends_by_the_same_fault_is_the_last() -> None:
    """It would be bought again every half minute, for a minute's price each time."""
    bench = Bench()
    for _ in range(10):
        bench.reconciler.step(0)
        for node_id in bench.fleet.living:
            bench.fleet.exits[node_id] = -9
            bench.fleet.faults[node_id] = "Client.InternalError: allow the key"
        bench.now_s += 600
    assert bench.reconciler.failed
    assert len(bench.fleet.exits) == 2 * len(SLOTS)
    assert bench.reconciler.fault == "Client.InternalError: allow the key"
    assert "allow the key" in bench.events[-1].detail


def test_a_loss_of_another_kind_between_two_faults_proves_nothing() -> None:
    bench = Bench()
    for number in range(6):
        bench.reconciler.step(0)
        for node_id in bench.fleet.living:
            bench.fleet.exits[node_id] = -9
            if number % 2 == 0:
                bench.fleet.faults[node_id] = "Client.VolumeLimitExceeded: ask for more"
        bench.now_s += 600
    assert not bench.reconciler.failed
    assert len(bench.fleet.exits) > 2 * len(SLOTS)


@pytest.mark.parametrize("code", [75, -9, 1])
def test_a_node_that_was_seen_to_end_is_said_to_be_gone_once(code: int) -> None:
    bench = Bench()
    bench.reconciler.step(0)
    bench.end(code)
    for _ in range(3):
        bench.reconciler.step(0)
    assert bench.gone == ["worker-0.0"]


def test_a_node_that_leaves_is_gone_once_it_has_ended() -> None:
    """A notice is not an end: it drains, and its leases are its own."""
    bench = Bench()
    bench.reconciler.step(0)
    assert bench.reconciler.leave("worker-0.0", "notice")
    bench.reconciler.step(0)
    assert bench.gone == []
    bench.end(-9)
    bench.reconciler.step(0)
    assert bench.gone == ["worker-0.0"]
