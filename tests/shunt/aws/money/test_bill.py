"""Spend: the bill that we compute is the bill of the account, to the cent."""

import random
from datetime import timedelta
from decimal import Decimal

import pytest

from shunt.aws.money.bill import by_pool, cost_usd, price_history, spend_usd, usages
from shunt.aws.money.meter import Meter
from shunt.aws.nodes.intent import Outcome
from shunt.aws.nodes.pool import Pool, SlotSpec
from shunt.run.node_status import NodeState, NodeStatus, write_status
from tests.shunt.aws.conftest import RUN, START, ZONES, Account, any_zone


@pytest.mark.parametrize("seed", range(5))
def test_the_bill_is_the_accounts_to_the_cent(account: Account, seed: int) -> None:
    rng = random.Random(seed)
    for zone in ZONES:
        pool = Pool("g6.12xlarge", zone, "spot")
        for hour in range(-30, 12, 3):
            at = START + timedelta(hours=hour, seconds=rng.randrange(3600))
            account.market.set_price(pool, at, str(round(rng.uniform(0.5, 3), 6)))
    demand = Pool("g6.12xlarge", ZONES[0], "on-demand")
    account.market.set_price(demand, START - timedelta(days=9), "4.6016")
    specs = {f"w-{n}": any_zone(f"w-{n}") for n in range(5)}
    specs["head"] = SlotSpec("head", (demand,))
    fleet = account.fleet(specs)
    ec2 = account.api()
    used = []
    for slot in specs:
        node = fleet.launch(slot)
        account.sleep(rng.randrange(7200))
        if rng.random() < 0.6:
            account.double.end(node)
        used = usages(ec2, account.store, RUN, now=account.now())
    account.sleep(1800)
    used = usages(ec2, account.store, RUN, now=account.now())
    prices = price_history(ec2, used, now=account.now())
    computed = spend_usd(used, prices, {"g6.12xlarge": Decimal("4.6016")})
    assert computed == account.double.bill_usd().quantize(Decimal("0.01"))
    assert computed > 1
    demand_usd = {"g6.12xlarge": Decimal("4.6016")}
    costs = {usage.node_id: cost_usd(usage, prices, demand_usd) for usage in used}
    pools = by_pool(used, costs, demand_usd)
    assert sum(pool.num_nodes for pool in pools) == len(used)
    assert abs(sum(pool.usd for pool in pools) - computed) <= Decimal("0.01") * len(pools)
    head = next(pool for pool in pools if pool.market == "on-demand")
    assert head.usd == head.on_demand_usd
    assert by_pool(used, costs, {})[0].on_demand_usd is None


def test_a_node_of_seconds_costs_a_minute(account: Account) -> None:
    """Thirty seconds at 3.60 USD an hour, and at 36 for the rest of its minute."""
    pool = Pool("g6.12xlarge", ZONES[0], "spot")
    account.market.set_price(pool, START, "3.6")
    account.market.set_price(pool, START + timedelta(seconds=30), "36")
    fleet = account.fleet({"w": SlotSpec("w", (pool,))})
    node = fleet.launch("w")
    account.sleep(10)
    account.double.end(node)
    account.sleep(600)
    used = usages(account.api(), account.store, RUN, now=account.now())
    prices = price_history(account.api(), used, now=account.now())
    assert spend_usd(used, prices, {}) == Decimal("0.33")
    assert account.double.bill_usd() == Decimal("0.33")


def test_a_node_that_ec2_has_forgotten_still_counts(account: Account) -> None:
    account.market.set_price(Pool("g6.12xlarge", ZONES[0], "spot"), START, "0.5")
    fleet = account.fleet({"w": any_zone("w")})
    node = fleet.launch("w")
    account.sleep(7200)
    account.double.end(node)
    for _ in range(2):
        used = usages(account.api(), account.store, RUN, now=account.now())
        prices = price_history(account.api(), used, now=account.now())
        assert spend_usd(used, prices, {}) == Decimal("1.00")
        account.sleep(2 * 3600)


def test_a_node_whose_clock_is_wrong_does_not_spend_the_future(account: Account) -> None:
    """EC2 has forgotten the node, so its last heartbeat tells its end, by the node's own clock."""
    pool = Pool("g6.12xlarge", ZONES[0], "spot")
    account.market.set_price(pool, START - timedelta(days=9), "3.6")
    account.sleep(7200)
    launched = Outcome(
        instance_id="i-1",
        instance_type=pool.instance_type,
        zone=pool.zone,
        market="spot",
        settled_at=START,
    )
    status = NodeStatus(
        node_id="i-1",
        pid=1,
        state=NodeState.RUNNING,
        started_at=START,
        updated_at=START + timedelta(days=365),
    )
    write_status(account.store, RUN, status)
    meter = Meter(
        ec2=account.api(),
        store=account.store,
        run_id=RUN,
        on_demand_usd_per_hour={},
        max_cost_usd=20.0,
        now=account.now,
        launched=lambda: [launched],
    )
    assert meter.read().usd == Decimal("7.20")
