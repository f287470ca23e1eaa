"""The nodes of one pipeline in virtual time: near each other, all or none, and nothing left."""

from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from shunt.aws import tags
from shunt.aws.nodes.pool import Pool, SlotSpec
from shunt.job.job import Limits
from shunt.testing.ec2.faults import ControllerKilled, kill_at
from tests.shunt.aws.conftest import RUN, START, ZONES, Account, Clients, any_zone
from tests.shunt.aws.stand import TYPE, Stand, stand_of

OTHER = "g6e.xlarge"
GROUP = f"shunt-{RUN}-head"


@pytest.fixture
def specs() -> dict[str, SlotSpec]:
    """One pipeline of three nodes, and one node that works alone."""
    slots = {"head": TYPE, "middle": TYPE, "tail": OTHER}
    together = {slot: replace(any_zone(slot, name), group=GROUP) for slot, name in slots.items()}
    return together | {"alone": any_zone("alone")}


@pytest.fixture
def stand(account: Account, specs: dict[str, SlotSpec]) -> Stand:
    return pipeline_stand(account, specs)


def pipeline_stand(account: Account, specs: dict[str, SlotSpec], **settings: Any) -> Stand:
    for zone in ZONES:
        account.market.set_price(Pool(OTHER, zone, "spot"), START - timedelta(days=9), "1.8")
    return stand_of(account, specs=specs, **settings)


def zones(account: Account) -> dict[str, str]:
    return {i.tags[tags.SLOT]: i.pool.zone for i in account.double.living()}


def test_they_share_a_zone_and_its_placement_group(account: Account, stand: Stand) -> None:
    stand.look()
    where = zones(account)
    assert where.keys() == {"head", "middle", "tail", "alone"}
    assert {where[slot] for slot in ("head", "middle", "tail")} == {"us-east-1a"}
    placed = {i.tags[tags.SLOT]: i.placement_group for i in account.double.living()}
    assert placed.pop("alone") == ""
    assert set(placed.values()) == {f"{GROUP}-us-east-1a"}
    assert account.double.placement_groups.groups[f"{GROUP}-us-east-1a"] == {tags.RUN: RUN}


def test_where_one_is_refused_all_go_to_the_next_zone(account: Account, stand: Stand) -> None:
    account.market.set_capacity(Pool(OTHER, "us-east-1a", "spot"), START, 0)
    for _ in range(40):
        stand.look()
    where = zones(account)
    assert {where[slot] for slot in ("head", "middle", "tail")} == {"us-east-1b"}
    assert len(account.double.living()) == 4


def test_where_no_zone_has_all_of_them_none_is_bought(account: Account, stand: Stand) -> None:
    """Once every zone has said so: the first look at each may buy what it has."""
    for zone in ZONES:
        account.market.set_capacity(Pool(OTHER, zone, "spot"), START, 0)
    for _ in range(20):
        stand.look()
    launched = len(account.double.instances)
    for _ in range(20):
        stand.look()
    assert len(account.double.instances) == launched
    account.market.set_capacity(Pool(OTHER, "us-east-1c", "spot"), account.true_now(), 1)
    for _ in range(80):
        stand.look()
    assert {z for s, z in zones(account).items() if s != "alone"} == {"us-east-1c"}


def test_a_node_that_is_taken_is_replaced_where_the_others_can_follow(
    account: Account, stand: Stand
) -> None:
    stand.look()
    (tail,) = [i for i in account.double.living() if i.tags[tags.SLOT] == "tail"]
    account.double.end(tail.instance_id, "Server.SpotInstanceTermination")
    for _ in range(40):
        stand.look()
    where = zones(account)
    assert {where[slot] for slot in ("head", "middle", "tail")} == {"us-east-1b"}
    assert len(account.double.living()) == 4
    assert "moves to us-east-1b" in " ".join(event.detail for event in stand.events)


def test_a_head_is_bought_on_demand_where_the_policy_says_so(
    account: Account, specs: dict[str, SlotSpec]
) -> None:
    specs["head"] = replace(specs["head"], heads=True)
    stand = pipeline_stand(account, specs, on_demand="head")
    for _ in range(3):
        stand.look()
    markets = {i.tags[tags.SLOT]: i.pool.market for i in account.double.living()}
    assert markets.pop("head") == "on-demand"
    assert set(markets.values()) == {"spot"}
    assert zones(account)["head"] == zones(account)["tail"]


@pytest.mark.parametrize(("limit_usd", "bought"), [(0.5, set()), (1.0, {"head", "middle", "tail"})])
def test_a_limit_that_has_no_room_for_the_whole_pipeline_buys_nothing_of_it(
    account: Account, specs: dict[str, SlotSpec], limit_usd: float, bought: set[str]
) -> None:
    """Up to 3.6, 3.6 and 1.8 USD an hour, of which six minutes each are kept."""
    del specs["alone"]
    stand = pipeline_stand(account, specs, limits=Limits(max_cost_usd=limit_usd))
    stand.look()
    assert {i.tags[tags.SLOT] for i in account.double.living()} == bought
    assert ("no room for all nodes of a pipeline" in stand.held.limit) == (not bought)


def test_the_way_out_removes_the_groups_too(account: Account, stand: Stand) -> None:
    with stand.held:
        stand.look()
        assert account.double.placement_groups.groups
    assert account.double.living() == []
    assert account.double.placement_groups.groups == {}


def test_a_controller_that_dies_at_any_call_leaves_nothing_twice_and_nothing_behind(
    clients: Clients, specs: dict[str, SlotSpec]
) -> None:
    undisturbed = Account(clients)
    hold_and_end(undisturbed, specs)
    assert "CreatePlacementGroup" in undisturbed.double.calls
    for number, call in enumerate(undisturbed.double.calls):
        for phase in ("before", "after"):
            account = Account(clients)
            account.double.faults.append(kill_at(number, phase))
            with suppress(ControllerKilled):
                hold_and_end(account, specs)
            hold_and_end(account, specs)
            case = (number, call, phase)
            assert account.double.living() == [], case
            assert account.double.placement_groups.groups == {}, case


def hold_and_end(account: Account, specs: dict[str, SlotSpec]) -> None:
    """One controller; left by `ControllerKilled` as by SIGKILL."""
    stand = pipeline_stand(account, specs)
    for _ in range(2):
        stand.look()
        living = [i.tags[tags.SLOT] for i in account.double.living()]
        assert len(living) == len(set(living)) == 4
    stand.held.__exit__(None, None, None)
