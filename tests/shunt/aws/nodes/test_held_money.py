"""The held fleet's money in virtual time: without a controller, without a pace, without need."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

import pytest

from shunt.aws import tags
from shunt.aws.errors import OutcomeUnknown
from shunt.aws.nodes.pool import Pool
from shunt.job.job import Limits
from shunt.run.node_status import NodeState
from shunt.run.status import ShardStatus
from shunt.testing.ec2.faults import FailFirst, unauthorised
from tests.shunt.aws.conftest import START, ZONES, Account
from tests.shunt.aws.stand import TYPE, Stand, stand_of


def expiries(account: Account) -> list[datetime]:
    return [datetime.fromisoformat(i.tags[tags.EXPIRES_AT]) for i in account.double.living()]


def drought(account: Account, *, ends_after: timedelta | None = None) -> None:
    for zone in ZONES:
        account.market.set_capacity(Pool(TYPE, zone, "spot"), START, 0)
        if ends_after is not None:
            account.market.set_capacity(Pool(TYPE, zone, "spot"), START + ends_after, 99)


def shard(name: str, holder: str = "", *, done: bool = False) -> ShardStatus:
    return ShardStatus(name, 10, 0, 0, 0, 0, holder, done)


def test_nodes_outlive_no_budget_although_nobody_watches_them(account: Account) -> None:
    """Two at 3.60 USD: 20 USD last 2.8 hours, not the day that `max_node_hours` allows."""
    stand = stand_of(account, limits=Limits(max_cost_usd=20.0))
    for _ in range(40):
        stand.look(after_s=60.0)
    until = max(expiries(account))
    assert timedelta(hours=2) < until - START < timedelta(hours=20 / 7.2)
    assert expiries(account)[0] - START > timedelta(hours=2)
    account.sleep((until - account.now()).total_seconds())  # the controller is dead
    assert account.double.bill_usd() <= 20


def test_a_replacement_gets_what_is_left_then(account: Account) -> None:
    stand = stand_of(account, limits=Limits(max_cost_usd=20.0))
    stand.look()
    for _ in range(10):
        stand.look(after_s=600.0)
    account.double.end(stand.nodes()[0])
    stand.look()
    account.sleep((max(expiries(account)) - account.now()).total_seconds())
    assert account.double.bill_usd() <= 20


def test_the_deadline_tag_moves_on_while_the_money_lasts(account: Account) -> None:
    """One of two nodes lives: the money lasts twice as long as was thought."""
    stand = stand_of(account, limits=Limits(max_cost_usd=7.2))
    stand.look()
    account.double.end(stand.nodes()[0])
    drought(account)
    (left,) = account.double.living()
    account.market.set_capacity(left.pool, START, 1)
    (before,) = expiries(account)
    for _ in range(60):
        stand.look(after_s=60.0)
    assert stand.living(), "it would have ended itself"
    (moved,) = expiries(account)
    assert moved > before


def test_a_right_to_tag_that_is_missing_ends_nodes_earlier_and_nothing_else(
    account: Account,
) -> None:
    account.double.faults.append(unauthorised("CreateTags"))
    stand = stand_of(account, limits=Limits(max_cost_usd=7.2))
    stand.look()
    account.double.end(stand.nodes()[0])
    for _ in range(50):
        stand.look(after_s=60.0)
    assert stand.living()


def test_a_drought_before_the_first_row_is_made_up_on_demand(account: Account) -> None:
    drought(account)
    limits = Limits(deadline=START + timedelta(hours=3))
    stand = stand_of(account, limits=limits, on_demand="at-deadline")
    for _ in range(3):
        stand.look()
    assert stand.markets() == ["on-demand"] * 2


def test_nodes_that_start_are_waited_for_before_any_is_bought_on_demand(account: Account) -> None:
    for zone in ZONES[1:]:
        account.market.set_capacity(Pool(TYPE, zone, "spot"), START, 0)
    account.market.set_capacity(Pool(TYPE, ZONES[0], "spot"), START, 1)
    limits = Limits(deadline=START + timedelta(hours=3))
    stand = stand_of(account, limits=limits, on_demand="at-deadline")
    for _ in range(10):
        stand.look()
    assert stand.markets() == ["spot"]


def test_on_demand_nodes_are_given_back_one_by_one_when_spot_returns(account: Account) -> None:
    drought(account, ends_after=timedelta(minutes=30))
    limits = Limits(deadline=START + timedelta(hours=12))
    stand = stand_of(account, limits=limits, on_demand="at-deadline")
    for _ in range(10):
        stand.look()
    assert stand.markets() == ["on-demand"] * 2
    most = 0
    for _ in range(150):
        stand.look(after_s=60.0, eta_s=3600.0)
        most = max(most, len(stand.living()))
    pools = [account.double.instances[node].pool.market for node in stand.nodes()]
    assert pools == ["spot"] * 2
    assert most == 3, "each works on until its replacement does"
    assert stand.living() == stand.nodes()


def test_an_on_demand_node_stays_where_spot_refuses_after_all(account: Account) -> None:
    drought(account)
    limits = Limits(deadline=START + timedelta(hours=24))
    stand = stand_of(account, limits=limits, on_demand="at-deadline")
    for _ in range(10):
        stand.look()
    bought = stand.nodes()
    for _ in range(200):
        stand.look(after_s=60.0, eta_s=3600.0)
    assert stand.nodes() == bought
    assert stand.living() == bought


@pytest.mark.parametrize("num_shards", [1, 2])
def test_no_more_nodes_are_bought_than_shards_are_open(account: Account, num_shards: int) -> None:
    stand = stand_of(account)
    stand.shards = (*map(shard, "ab"[:num_shards]), shard("x", done=True))
    for _ in range(3):
        stand.look()
    assert len(stand.living()) == num_shards


@pytest.mark.parametrize(("num_shards", "num_nodes"), [(1, 1), (4, 1), (5, 2)])
def test_a_node_of_several_workers_takes_as_many_shards(
    account: Account, num_shards: int, num_nodes: int
) -> None:
    stand = stand_of(account)
    stand.held.workers_a_node = 4
    stand.shards = tuple(map(shard, "abcde"[:num_shards]))
    for _ in range(3):
        stand.look()
    assert len(stand.living()) == num_nodes


def tail(account: Account) -> tuple[Stand, Callable[[], None]]:
    """Two nodes; the first holds the only shard that is left."""
    stand = stand_of(account)
    stand.look()
    first, _ = stand.nodes()

    def looks() -> None:
        for _ in range(30):
            stand.look()

    stand.shards = (shard("a", first), shard("b", done=True))
    return stand, looks


def test_a_node_that_finds_no_shard_is_released_and_not_replaced(account: Account) -> None:
    stand, looks = tail(account)
    first, _ = stand.nodes()
    looks()
    assert stand.living() == [first]
    assert stand.held.reconciler.num_lost == 0
    account.double.end(first, "Server.SpotInstanceTermination")
    looks()
    assert len(stand.living()) == 1, "the last shard still needs one"


def test_a_worker_that_was_killed_keeps_no_idle_node(account: Account) -> None:
    """It says for ever that it runs; the one that was started in its place has another name."""
    stand, looks = tail(account)
    first, second = stand.nodes()
    stand.say(f"{second}.0-dead01", NodeState.RUNNING)
    looks()
    assert stand.living() == [first]


def test_idle_nodes_stay_while_a_shard_is_free(account: Account) -> None:
    stand, looks = tail(account)
    stand.shards = (*stand.shards, shard("c"))
    looks()
    assert len(stand.living()) == 2


def test_the_deadline_tag_moves_back_when_the_money_goes_faster(account: Account) -> None:
    """The price rises fivefold. A controller that dies then leaves no nodes that outlive it."""
    stand = stand_of(account, limits=Limits(max_cost_usd=30.0))
    for _ in range(8):
        stand.look()
    before = max(expiries(account))
    for zone in ZONES:
        account.market.set_price(Pool(TYPE, zone, "spot"), account.now(), "18")
    for _ in range(80):
        stand.look()
    until = max(expiries(account))
    assert until < before
    account.sleep((until - account.now()).total_seconds())  # the controller is dead
    assert account.double.bill_usd() <= 30


def test_a_queue_that_fails_stops_neither_the_budget_nor_the_repair(account: Account) -> None:
    stand = stand_of(account, limits=Limits(max_cost_usd=20.0))
    stand.look()
    queue = stand.held.watch.queue
    assert queue is not None
    queue.sqs = FailingApi()  # type: ignore[assignment]
    gone = stand.nodes()[0]
    account.double.end(gone)
    for _ in range(20):
        stand.look()
    assert len(stand.nodes()) == 2
    assert gone not in stand.nodes()
    told = [event.detail for event in stand.events if "notice queue" in event.detail]
    assert len(told) == 1
    assert "nodes see their notices themselves" in told[0]
    while not stand.held.limit and account.now() < START + timedelta(days=1):
        stand.look(after_s=60.0)
    assert "cost limit" in stand.held.limit
    assert account.double.bill_usd() <= 20


class FailingApi:
    """SQS that is away."""

    def call(self, operation: str, params: Mapping[str, object]) -> dict[str, object]:
        del params
        raise OutcomeUnknown(operation, "ConnectionFailed", "no route")


def test_a_node_that_ec2_does_not_know_is_no_reason_to_stop(account: Account) -> None:
    """One that was launched just now is not known everywhere; its end is asked for again."""
    account.double.faults.append(FailFirst("TerminateInstances", "InvalidInstanceID.NotFound", 2))
    stand = stand_of(account)
    stand.look()
    early, _ = stand.nodes()
    stand.held.reconciler.leave(early, "not wanted", within_s=0.0)
    for _ in range(5):
        stand.look()
    assert early not in stand.living()
    assert len(stand.living()) == 2
