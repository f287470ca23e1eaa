"""The held fleet in virtual time: notices, silence, money, the deadline and the way out."""

from datetime import timedelta
from decimal import Decimal

import pytest

from shunt.aws.errors import PermissionRefused
from shunt.aws.money.meter import PriceUnknown
from shunt.aws.nodes.held_fleet import NodesRemain
from shunt.aws.nodes.inventory import list_nodes
from shunt.aws.nodes.pool import Pool
from shunt.job.job import Limits
from shunt.run.event import EventKind
from shunt.run.node_status import NodeState, NodeStatus
from shunt.run.spend import read_spend
from shunt.testing.ec2.faults import ControllerKilled, FailFirst, kill_at, unauthorised
from shunt.testing.ec2.notice_queue import INTERRUPTION, REBALANCE, STATE_CHANGE
from tests.shunt.aws.conftest import RUN, START, ZONES, Account, Clients
from tests.shunt.aws.stand import TYPE, stand_of


@pytest.mark.parametrize("twice", [False, True])
def test_a_notice_is_one_event_and_its_replacement_comes_at_once_from_another_pool(
    account: Account, twice: bool
) -> None:
    stand = stand_of(account)
    stand.look()
    going, staying = stand.nodes()
    account.double.notify(going)
    for _ in range(2 if twice else 1):
        stand.queue.put(INTERRUPTION, going, account.now())
    stand.look()
    if twice:
        stand.queue.put(INTERRUPTION, going, account.now())
        stand.say(going, NodeState.DRAINING)
        stand.look()

    assert stand.kinds().count("interrupted") == 1
    assert len(stand.living()) == 3, "the old one still drains"
    (new,) = set(stand.nodes()) - {staying}
    instances = account.double.instances
    assert instances[new].pool.zone != instances[going].pool.zone
    for _ in range(40):
        stand.look()
    assert stand.living() == stand.nodes()
    assert len(account.double.instances) == 3


def test_a_worker_that_drains_is_a_notice_where_there_is_no_queue(account: Account) -> None:
    stand = stand_of(account)
    stand.look()
    going, _ = stand.nodes()
    stand.say(going, NodeState.DRAINING)
    stand.look(speak=False)
    assert going not in stand.nodes()
    assert len(stand.nodes()) == 2


def test_a_withdrawn_notice_leaves_no_node_too_many(account: Account) -> None:
    stand = stand_of(account)
    stand.look()
    going, _ = stand.nodes()
    stand.queue.put(INTERRUPTION, going, account.now())
    account.double.notify(going)
    account.double.withdraw(going)
    for _ in range(40):
        stand.look()
    assert stand.living() == stand.nodes()
    assert len(account.double.instances) == 3
    assert account.double.instances[going].end_code == "Client.UserInitiatedShutdown"


def test_without_any_notice_the_end_is_seen_and_repaired(account: Account) -> None:
    stand = stand_of(account)
    stand.look()
    for node_id in stand.nodes():
        account.double.end(node_id, "Server.SpotInstanceTermination")
        stand.queue.put(STATE_CHANGE, node_id, account.now(), state="terminated")
    stand.look()
    assert stand.living() == stand.nodes()
    assert stand.kinds().count("interrupted") == 2
    assert len(account.double.instances) == 4


@pytest.mark.parametrize("replace", [False, True])
def test_advice_starts_a_replacement_only_by_policy(account: Account, replace: bool) -> None:
    stand = stand_of(account, replace_at_rebalance=replace)
    stand.look()
    advised, _ = stand.nodes()
    for _ in range(3):
        stand.queue.put(REBALANCE, advised, account.now())
        stand.look()
    assert len(stand.living()) == (3 if replace else 2)
    assert stand.kinds().count("interrupted") == int(replace)
    assert stand.kinds().count("rebalance") == int(not replace)
    for _ in range(200):
        stand.look()
    assert len(stand.living()) == 2
    assert (advised in stand.living()) == (not replace)


def test_a_node_that_falls_silent_is_ended_and_replaced(account: Account) -> None:
    stand = stand_of(account)
    stand.look()
    stand.look()
    silent = stand.nodes()
    for _ in range(35):
        stand.look(speak=False)
    assert stand.nodes() == silent, "175 s are not yet silence"
    for _ in range(3):
        stand.look(speak=False)
    assert stand.living() == stand.nodes()
    assert set(stand.nodes()).isdisjoint(silent)
    assert "not heard of" in next(e.detail for e in stand.events if e.kind == "interrupted")


def test_a_node_that_somebody_stopped_is_replaced_when_it_is_silent(account: Account) -> None:
    """The queue says that it stops, EC2 lists it as it does any that may start again."""
    stand = stand_of(account)
    stand.look()
    stand.look()
    stopped, _ = stand.nodes()
    stand.queue.put(STATE_CHANGE, stopped, account.now(), state="stopping")
    for _ in range(40):
        stand.look(speak=False)
    assert stopped not in stand.living()


def test_nodes_that_never_speak_are_given_up_after_so_many(account: Account) -> None:
    stand = stand_of(account)
    for _ in range(1500):
        stand.look(speak=False)
        if stand.held.reconciler.failed:
            break
    assert stand.held.reconciler.failed
    assert len(account.double.instances) == 2 * (3 + 1), "max_crashes of each slot, and the first"


def test_spend_is_told_while_it_grows(account: Account) -> None:
    stand = stand_of(account)
    for _ in range(25):
        stand.look(after_s=60.0)
    spend = read_spend(account.store, RUN)
    assert spend is not None
    assert spend.usd_per_hour == Decimal("7.2")
    assert spend.num_nodes == 2
    assert abs(spend.usd - account.double.bill_usd()) < Decimal("0.8")


def test_the_cost_limit_stops_with_money_left_for_the_drain(account: Account) -> None:
    stand = stand_of(account, limits=Limits(max_cost_usd=2.0))
    looks = 0
    while not stand.held.limit and looks < 1000:
        stand.look()
        looks += 1
    assert "cost limit of 2.00 USD" in stand.held.limit
    with stand.held:
        account.sleep(120.0)
    assert Decimal("1.3") < account.double.bill_usd() <= 2
    assert stand.living() == []


def test_a_limit_that_has_no_room_for_a_node_buys_none_and_says_so(account: Account) -> None:
    """Of 3.60 USD an hour a minute is billed and five are kept back: 36 cents."""
    stand = stand_of(account, limits=Limits(max_cost_usd=0.36))
    stand.look()
    assert account.double.instances == {}
    assert stand.held.limit == (
        "the cost limit of 0.36 USD has no room for a node: 0.00 USD are spent, a node costs up "
        "to 3.60 USD an hour, one minute is billed at least, and five are kept back for its end"
    )


def test_a_limit_that_has_room_for_one_of_two_nodes_buys_one(account: Account) -> None:
    stand = stand_of(account, limits=Limits(max_cost_usd=0.50))
    for _ in range(3):
        stand.look()
    assert len(account.double.instances) == 1
    assert not stand.held.limit
    told = [e.detail for e in stand.events if e.kind.value == "market"]
    assert told == ["the cost limit has no room for 1 of the nodes that are wanted"]
    assert len(account.double.calls) < 12, "the prices are asked for once"


def test_a_dear_pool_counts_as_long_as_a_node_may_come_from_it(account: Account) -> None:
    stand = stand_of(account, limits=Limits(max_cost_usd=3.00))
    dear = Pool(TYPE, ZONES[2], "spot")
    account.market.set_price(dear, START - timedelta(days=1), "40")
    stand.look()
    assert account.double.instances == {}
    assert "up to 40.00 USD an hour" in stand.held.limit


def test_a_price_that_nobody_tells_stops_a_limited_run_before_it_buys(account: Account) -> None:
    stand = stand_of(account, limits=Limits(max_cost_usd=3.00))
    account.market.prices.clear()
    with pytest.raises(PriceUnknown, match=TYPE):
        stand.look()
    assert account.double.instances == {}


def test_a_run_that_has_spent_its_limit_buys_nothing_more(account: Account) -> None:
    spent = stand_of(account)
    with spent.held:
        spent.look()
        account.sleep(3600.0)
    again = stand_of(account, limits=Limits(max_cost_usd=7.0))
    again.look()
    assert again.held.limit
    assert len(account.double.instances) == 2


def test_on_demand_is_bought_only_when_the_slack_is_gone(account: Account) -> None:
    deadline = START + timedelta(hours=1)
    stand = stand_of(account, limits=Limits(deadline=deadline), on_demand="at-deadline")
    stand.look(eta_s=1800.0)
    account.double.end(stand.nodes()[0], "Server.SpotInstanceTermination")
    stand.look(eta_s=1800.0)
    assert stand.markets() == ["spot"] * 3
    stand.look(eta_s=3400.0)
    assert stand.markets() == ["spot"] * 3, "what lives goes on"
    account.double.end(stand.nodes()[0], "Server.SpotInstanceTermination")
    stand.look(eta_s=3400.0)
    assert stand.markets() == ["spot"] * 3 + ["on-demand"]
    assert stand.kinds().count("market") == 1
    stand.look(eta_s=600.0)
    account.double.end(stand.nodes()[0])
    stand.look(eta_s=600.0)
    assert stand.markets()[4:] == ["spot"], "there is slack again"


def test_on_demand_is_never_bought_where_the_policy_says_never(account: Account) -> None:
    stand = stand_of(account, limits=Limits(deadline=START + timedelta(hours=1)))
    stand.look(eta_s=7200.0)
    assert stand.markets() == ["spot"] * 2


def test_missing_spot_capacity_near_the_deadline_is_made_up_at_once(account: Account) -> None:
    for zone in ZONES:
        account.market.set_capacity(Pool(TYPE, zone, "spot"), START, 0)
    deadline = START + timedelta(hours=1)
    stand = stand_of(account, limits=Limits(deadline=deadline), on_demand="at-deadline")
    stand.look(eta_s=60.0)
    assert stand.living() == []
    stand.look(eta_s=3500.0)
    assert stand.markets() == ["on-demand"] * 2


def test_at_the_deadline_it_stops(account: Account) -> None:
    stand = stand_of(account, limits=Limits(deadline=START + timedelta(minutes=5)))
    stand.look()
    assert not stand.held.limit
    (expiry,) = {i.tags["shunt:expires-at"] for i in account.double.living()}
    assert expiry == "2026-03-01T00:15:00+00:00"
    stand.look(after_s=300.0)
    assert "deadline" in stand.held.limit


def test_ec2_that_does_not_answer_is_asked_again_and_nodes_go_on(account: Account) -> None:
    stand = stand_of(account)
    stand.look()
    account.double.faults.append(FailFirst("DescribeInstances", "InternalError", 8))
    stand.look()
    stand.look()
    assert len(stand.living()) == 2


def test_a_right_that_is_lost_on_the_way_is_told_with_what_may_be_left(account: Account) -> None:
    stand = stand_of(account)

    def drive() -> None:
        with stand.held:
            stand.look()
            account.double.faults.append(unauthorised("DescribeInstances"))
            stand.look()

    with pytest.raises(NodesRemain, match="ec2:DescribeInstances") as caught:
        drive()
    assert isinstance(caught.value.__context__, PermissionRefused)
    assert "2026-03-02 00:00" in str(caught.value), "when the nodes end themselves"


def test_a_price_that_nobody_tells_stops_no_run_without_a_limit(account: Account) -> None:
    stand = stand_of(account)
    account.market.prices.clear()
    with stand.held:
        for _ in range(20):
            stand.look()
        assert len(stand.living()) == 2
    assert stand.living() == []
    told = [e.detail for e in stand.events if e.kind is EventKind.MARKET]
    assert len(told) == 1, "it is told once"
    assert TYPE in told[0]
    assert "not known" in stand.events[-1].detail


def test_nodes_that_ended_while_nobody_looked_are_counted_by_their_last_word(
    account: Account,
) -> None:
    stand = stand_of(account)
    stand.look()
    for _ in range(60):
        account.sleep(60.0)
        for node_id in stand.nodes():
            stand.say(node_id, NodeState.RUNNING)
    for node_id in stand.nodes():
        account.double.end(node_id)
    account.sleep(4 * 3600.0)
    again = stand_of(account)
    spend = again.held.meter.read()
    assert abs(spend.usd - account.double.bill_usd()) < Decimal("0.02")
    assert spend.usd > 7
    assert spend.num_nodes == 0


def test_the_bill_stays_exact_while_nodes_end_and_prices_move(account: Account) -> None:
    """Over many readings of one meter, which counts a node that ended long ago only once."""
    stand = stand_of(account)
    for zone in ZONES:
        for hour in range(30):
            at = START + timedelta(hours=hour, seconds=937)
            account.market.set_price(Pool(TYPE, zone, "spot"), at, f"{2 + hour % 7 * 0.377:.4f}")
    for look in range(200):
        stand.look(after_s=300.0)
        if look % 11 == 5:
            account.double.end(stand.nodes()[0], "Server.SpotInstanceTermination")
    stand.held.__exit__(None, None, None)
    spend = read_spend(account.store, RUN)
    assert spend is not None
    assert spend.num_launched > 15
    assert spend.usd == account.double.bill_usd().quantize(Decimal("0.01"))


def test_leaving_tells_the_bill(account: Account) -> None:
    stand = stand_of(account)
    with stand.held:
        stand.look()
        account.sleep(1800.0)
    told = stand.events[-1]
    assert told.kind is EventKind.FLEET_ENDED
    assert told.detail == "all 2 nodes have ended; they cost 3.60 USD"
    spend = read_spend(account.store, RUN)
    assert spend is not None
    assert spend.usd == account.double.bill_usd().quantize(Decimal("0.01"))
    assert spend.num_nodes == 0


def hold_to_the_end(account: Account, said: dict[str, NodeStatus]) -> None:
    """One controller: two nodes, a notice to the first after 20 s, all done after 200 s.

    What workers do goes on without it. Left by `ControllerKilled` as by SIGKILL: nothing is ended.
    """
    stand = stand_of(account)
    stand.said = said
    while not stand.held.reconciler.done:
        stand.look(speak=False)
        first = account.double.instances["i-" + "0" * 17] if account.now_s > 20 else None
        if first is not None and first.notice_at is None and first.ended_at is None:
            account.double.notify(first.instance_id)
        for instance in account.double.living():
            if account.now_s > 200:
                stand.say(instance.instance_id, NodeState.ENDED, 0)
                account.double.end(instance.instance_id)
            else:
                told = instance.notice_at is not None
                stand.say(instance.instance_id, NodeState.DRAINING if told else NodeState.RUNNING)
    stand.held.__exit__(None, None, None)


def test_a_controller_killed_at_every_call_leaves_and_doubles_nothing(clients: Clients) -> None:
    """And the bill that the next one tells is the account's to the cent."""
    undisturbed = Account(clients)
    hold_to_the_end(undisturbed, {})
    num_calls = len(undisturbed.double.calls)
    assert num_calls > 60
    for number in range(num_calls):
        for phase in ("before", "after"):
            account, said = Account(clients), dict[str, NodeStatus]()
            account.double.visible_after_s = 4.0
            account.double.faults.append(kill_at(number, phase))
            try:
                hold_to_the_end(account, said)
            except ControllerKilled:
                hold_to_the_end(account, said)
            case = (number, phase, account.double.calls[number])
            assert len(account.double.instances) == 3, case
            assert list_nodes(account.api()) == [], case
            spend = read_spend(account.store, RUN)
            assert spend is not None
            assert spend.usd == account.double.bill_usd().quantize(Decimal("0.01")), case
