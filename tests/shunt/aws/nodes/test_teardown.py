"""The way out of a held fleet in virtual time: what is ended, by whom, and what it may hide."""

import threading
from collections.abc import Callable
from datetime import timedelta

import pytest

from shunt.aws.money.meter import Meter
from shunt.aws.nodes.pool import Blocklist, Pool
from shunt.aws.nodes.replanning import Found, Remaining, Replanning
from shunt.errors import RunError
from shunt.run.driver import DrivenElsewhere, DriverLease, Place, take_drive
from shunt.run.spend import Spend
from shunt.run.status import RunState, RunStatus
from shunt.store.errors import StoreUnavailable
from tests.shunt.aws.conftest import RUN, START, ZONES, Account
from tests.shunt.aws.stand import TYPE, Stand, stand_of


class Role:
    """Of a run, as far as a fleet sees it."""

    def __init__(self) -> None:
        self.there = False

    def make(self) -> str:
        self.there = True
        return "shunt-worker"

    def remove(self) -> None:
        self.there = False


def driven(account: Account, place: str) -> DriverLease:
    return take_drive(
        account.store,
        RUN,
        monotonic=lambda: account.now_s,
        sleep=account.sleep,
        own=Place(host=place, machine=place, pid=1, started="1"),
    )


def away(*_: object) -> bytes:
    raise StoreUnavailable("the store is away")


def test_who_lost_the_run_to_another_driver_ends_nothing(account: Account) -> None:
    role, other = Role(), Role()
    first = stand_of(account, role=role, lease=driven(account, "a"))
    first.look()
    nodes = first.nodes()
    second = stand_of(account, role=other, lease=driven(account, "b"))
    second.look()
    assert second.nodes() == nodes, "it takes them over"

    with first.held:
        pass
    assert second.living() == nodes
    assert role.there
    with second.held:
        pass
    assert second.living() == []
    assert not other.there


def test_who_was_replaced_buys_nothing_more(account: Account) -> None:
    first = stand_of(account, lease=driven(account, "a"))
    first.look()
    driven(account, "b")
    assert first.held.lease is not None
    first.held.lease.look()  # as the beating thread does
    with pytest.raises(DrivenElsewhere):
        first.look()


def test_who_cannot_ask_ends_what_it_knows_and_leaves_the_role(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    role = Role()
    first = stand_of(account, role=role, lease=driven(account, "a"))
    first.look()
    known = first.nodes()
    second = stand_of(account, lease=driven(account, "b"))
    second.look()
    account.double.end(known[0])
    second.look()
    (new,) = set(second.nodes()) - set(known)
    monkeypatch.setattr(account.store, "get", away)
    with first.held:
        pass
    assert account.double.instances[known[1]].state != "running"
    assert account.double.instances[new].state == "running"
    assert role.there


def left(stand: Stand, meanwhile: Callable[[], object]) -> None:
    """A drive that fails."""
    with stand.held:
        stand.look()
        meanwhile()
        raise RunError(RUN, "every worker failed")


@pytest.mark.parametrize("what", ["store", "price"])
def test_an_error_on_the_way_out_hides_no_error_and_leaks_no_role(
    account: Account, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    role = Role()
    stand = stand_of(account, role=role)

    def meanwhile() -> None:
        assert role.there
        if what == "price":
            account.market.prices.clear()
        else:
            monkeypatch.setattr(account.store, "put", away)
            monkeypatch.setattr(account.store, "put_if_absent", away)

    with pytest.raises(RunError, match="every worker failed"):
        left(stand, meanwhile)
    assert stand.living() == []
    assert not role.there


def test_a_bug_on_the_way_out_leaks_no_role_and_names_the_first_error(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    role = Role()
    stand = stand_of(account, role=role)

    def broken(_: Meter) -> Spend:
        raise KeyError("a price")

    with pytest.raises(KeyError, match="a price") as raised:
        left(stand, lambda: monkeypatch.setattr(Meter, "read", broken))
    assert isinstance(raised.value.__context__, RunError)
    assert stand.living() == []
    assert not role.there


def test_money_is_watched_while_the_store_is_away(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nodes cost what they cost; by the last reading the limit is reached."""
    stand = stand_of(account, max_node_hours=48)
    stand.held.limits = stand.held.purse.limits = stand.held.limits.model_copy(
        update={"max_cost_usd": 2.0}
    )
    stand.look()
    stand.look()
    nodes = stand.nodes()
    monkeypatch.setattr(account.store, "put", away)
    stale = RunStatus(RUN, account.now(), RunState.OPEN, 1, 0, 0, 0, (), tuple(stand.said.values()))
    while not stand.held.limit and account.now_s < 3600:
        account.sleep(5.0)
        stand.held.step(stale, None)
        assert stand.nodes() == nodes, "a store that is away makes no node silent"
    assert "cost limit of 2.00 USD" in stand.held.limit
    assert account.double.bill_usd() <= 2


class SlowPlanner:
    """Finds nothing, by hand."""

    num_workers, whole_s = 2, 3600.0

    def __init__(self) -> None:
        self.asked = 0

    def replanned(
        self, remaining: Remaining, *, closed: Blocklist, holding: object
    ) -> Found | None:
        del remaining, closed, holding
        self.asked += 1
        return None


def test_refusals_ask_the_planner_now_and_then_only(account: Account) -> None:
    """Every pool that closes is a reason; a solver takes tens of seconds."""
    planner = SlowPlanner()
    asked = Replanning(planner, lambda: account.now_s, every_s=180.0)
    blocklist = Blocklist(lambda: account.now_s)
    for look in range(120):
        account.now_s += 5.0
        blocklist.block(Pool(f"g6.{look}xlarge", "us-east-1a", "spot"))
        asked.ask(Remaining(1.0, 60.0, None), blocklist, {})
        while asked._pending is not None:  # its thread is done in no time
            asked.answer()
    asked.close()
    assert planner.asked == 4, "in ten minutes"


def test_a_planner_that_thinks_holds_up_no_look(account: Account) -> None:
    thinks, gave_up = threading.Event(), threading.Event()

    class Thinker(SlowPlanner):
        def replanned(
            self, remaining: Remaining, *, closed: Blocklist, holding: object
        ) -> Found | None:
            if not thinks.wait(30.0):
                gave_up.set()  # so whoever asked waited for the answer
            return super().replanned(remaining, closed=closed, holding=holding)

    for zone in ZONES:
        account.market.set_capacity(Pool(TYPE, zone, "spot"), START, 0)
    stand = stand_of(account, planner=Thinker())
    for _ in range(3):
        stand.look()
    account.market.set_capacity(Pool(TYPE, ZONES[0], "spot"), account.true_now(), 2)
    for _ in range(60):
        stand.look()
    assert len(stand.living()) == 2, "while the planner still thinks"
    assert not gave_up.is_set()
    thinks.set()
    stand.held.__exit__(None, None, None)


def test_nodes_that_ec2_has_forgotten_are_not_waited_for(account: Account) -> None:
    """A resume an hour later finds its places empty at once, and nothing interrupted."""
    stand = stand_of(account)
    stand.look()
    for node_id in stand.nodes():
        account.double.end(node_id)
    account.sleep(timedelta(hours=3).total_seconds())
    again = stand_of(account)
    status = RunStatus(RUN, account.now(), RunState.OPEN, 1, 0, 0, 0, (), ())
    again.held.step(status, None)
    assert len(again.living()) == 2
    assert again.kinds().count("interrupted") == 0
