"""A held fleet in virtual time through days on which much goes wrong: the bill, and every right."""

import random
from datetime import timedelta
from decimal import Decimal

import pytest

from shunt.aws.errors import PermissionRefused
from shunt.aws.nodes.held_fleet import NodesRemain
from shunt.aws.nodes.pool import Pool
from shunt.job.job import Limits
from shunt.testing.ec2.faults import unauthorised
from shunt.testing.ec2.notice_queue import INTERRUPTION
from tests.shunt.aws.conftest import START, ZONES, Account
from tests.shunt.aws.stand import TYPE, Stand, stand_of

CENT = Decimal("0.01")
HOURS = 6


@pytest.mark.parametrize("seed", range(4))
def test_the_bill_of_a_wild_day_is_the_accounts_to_the_cent(account: Account, seed: int) -> None:
    """Prices that move by the minute, notices, withdrawn notices, sudden deaths, and on-demand
    towards the end; told by a clock that is an hour off."""
    rng = random.Random(seed)
    deadline = START + timedelta(hours=HOURS)
    stand = stand_of(account, limits=Limits(deadline=deadline), on_demand="at-deadline")
    for zone in ZONES:
        for minute in range(-60, HOURS * 60, 7):
            at = START + timedelta(minutes=minute, seconds=rng.randrange(60))
            price = str(round(rng.uniform(0.5, 6), 6))
            account.market.set_price(Pool(TYPE, zone, "spot"), at, price)
    with stand.held:
        while not stand.held.limit:
            _something_happens(stand, rng)
            left_s = (deadline - account.now()).total_seconds()
            stand.look(after_s=rng.choice((5.0, 60.0, 400.0)), eta_s=left_s * rng.uniform(0.5, 1.2))
    assert set(stand.markets()) == {"spot", "on-demand"}
    assert len(stand.markets()) > 10
    told = stand.held.meter.read()
    assert told.usd == account.double.bill_usd().quantize(CENT)
    assert stand.living() == []


def _something_happens(stand: Stand, rng: random.Random) -> None:
    living = stand.living()
    chance = rng.random()
    if not living or chance > 0.3:
        return
    node = rng.choice(living)
    if chance < 0.1:
        stand.account.double.end(node, "Server.SpotInstanceTermination")
        return
    stand.account.double.notify(node)
    for _ in range(rng.randrange(3)):  # told by the queue not at all, once, or twice
        stand.queue.put(INTERRUPTION, node, stand.account.now())
    if chance < 0.15:
        stand.account.double.withdraw(node)


def drive(stand: Stand) -> None:
    """Two nodes, a minute, the end."""
    with stand.held:
        for _ in range(12):
            stand.look()


def test_every_right_that_is_missing_is_named_and_leaves_what_can_be_ended(
    account: Account,
) -> None:
    drive(stand_of(account))
    used = set(account.double.calls)
    assert used > {"CreateFleet", "DescribeInstances", "TerminateInstances"}
    for operation in sorted(used):
        poor = Account(account.clients)
        poor.double.faults.append(unauthorised(operation))
        stand = stand_of(poor)
        with pytest.raises((PermissionRefused, NodesRemain), match=f"needs ec2:{operation}"):
            drive(stand)
        may_end = operation not in ("TerminateInstances", "DescribeInstances")
        assert stand.living() == [] or not may_end, operation
        if operation == "DescribeInstances":
            assert poor.double.instances == {}, "who may not look buys nothing"
