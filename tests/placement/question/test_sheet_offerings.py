"""From a sheet of the market to offerings, within quotas that hold for families together."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from placement.answer.sheet_answer import sheet_answer
from placement.catalogue.hardware import Catalogue
from placement.catalogue.snapshot import shipped_sheet
from placement.errors import BadInput
from placement.question.interruption import DEFAULT_SPOT_RATE
from placement.question.objective import Kind, Objective
from placement.question.question import Question
from placement.question.sheet_offerings import (
    DEFAULT_MAX_NODES,
    Wanted,
    offerings_of,
    within_quotas,
)
from shunt.plan.offering_sheet import OfferingSheet, SpotPrice
from shunt.plan.plan import NodeSlot

SPOT_QUOTA = "All G and VT Spot Instance Requests"


def price(name: str, zone: str, usd: float) -> SpotPrice:
    return SpotPrice(instance_type=name, zone=zone, usd_per_hour=usd)


SHEET = OfferingSheet(
    region="us-east-1",
    taken_at=datetime(2026, 3, 1, tzinfo=UTC),
    prices=(
        price("g6.xlarge", "us-east-1a", 0.4),
        price("g6.xlarge", "us-east-1b", 0.3),
        price("g6e.xlarge", "us-east-1a", 0.9),
        price("p5.48xlarge", "us-east-1a", 18.0),
        price("z9.huge", "us-east-1a", 1.0),
    ),
    on_demand={"g6.xlarge": 0.9},
    quotas={SPOT_QUOTA: 16, "All P5 Spot Instance Requests": 0},
)


def test_every_pool_of_the_catalogue_within_its_quota(catalogue: Catalogue) -> None:
    """16 vCPU are four nodes of 4 vCPU in each zone; P5 has none; on demand has no quota told."""
    found = offerings_of(SHEET, catalogue)
    assert [(o.name, o.usd_per_hour, o.max_nodes) for o in found.offerings] == [
        ("g6.xlarge/us-east-1a/spot", 0.4, 4),
        ("g6.xlarge/us-east-1b/spot", 0.3, 4),
        ("g6e.xlarge/us-east-1a/spot", 0.9, 4),
        ("g6.xlarge/any zone/on-demand", 0.9, DEFAULT_MAX_NODES),
    ]
    unknown, quota = found.notes
    assert "z9.huge" in unknown
    assert "p5.48xlarge spot: needs 192 vCPU, the quota 'All P5 Spot" in quota


def test_only_what_is_wanted(catalogue: Catalogue) -> None:
    wanted = [
        Wanted("g6.xlarge", "spot", "us-east-1b", max_nodes=3, interruptions_per_hour=0.2),
        Wanted("g6.xlarge", "spot", "us-east-1a", max_nodes=30),
        Wanted("g6e.xlarge", "on-demand", max_nodes=2),
        Wanted("g6e.xlarge", "spot", "us-east-1c", max_nodes=2),
    ]
    found = offerings_of(SHEET, catalogue, wanted)
    spot, capped, demand = found.offerings
    assert capped.max_nodes == 4
    assert (spot.zone, spot.max_nodes, spot.interruptions_per_hour) == ("us-east-1b", 3, 0.2)
    # The sheet has no price of it on demand: the catalogue has.
    assert demand.usd_per_hour == catalogue.instance("g6e.xlarge").ondemand_usd_per_hour
    assert found.notes == ("left out: g6e.xlarge spot us-east-1c: no price",)
    with pytest.raises(BadInput, match="unknown instance type"):
        offerings_of(SHEET, catalogue, [Wanted("z9.huge")])


def test_a_quota_of_several_types_together(catalogue: Catalogue) -> None:
    """Three g6 and three g6e are 24 vCPU of 16: two of each remain, nothing else of the quota."""
    found = offerings_of(SHEET, catalogue)
    nodes = [node("g6.xlarge", "us-east-1b", n) for n in range(3)]
    nodes += [node("g6e.xlarge", "us-east-1a", n) for n in range(3)]
    capped, told = within_quotas(SHEET, found.offerings, nodes)
    assert [o.max_nodes for o in capped] == [0, 2, 2, DEFAULT_MAX_NODES]
    assert told == (f"quota '{SPOT_QUOTA}': 16 vCPU, the best plan without it takes 24",)
    assert within_quotas(SHEET, found.offerings, nodes[:4]) == (found.offerings, ())


def node(instance_type: str, zone: str, number: int) -> NodeSlot:
    return NodeSlot(
        slot=f"{instance_type}-{number}",
        instance_type=instance_type,
        zone=zone,
        market="spot",
        usd_per_hour=1.0,
        gpu_count=1,
    )


def test_the_plan_keeps_within_the_quota_and_says_so(
    catalogue: Catalogue, ask: Callable[..., Question]
) -> None:
    """The best plan takes every node it can get: without the quota twelve, with it four."""
    wanted = [Wanted("g6.xlarge", zone="us-east-1b"), Wanted("g6e.xlarge", zone="us-east-1a")]
    question = ask(offerings_of(SHEET, catalogue, wanted).offerings)
    plan = sheet_answer(question, SHEET).plan
    assert sum(catalogue.instance(n.instance_type).vcpus for n in plan.nodes) <= 16
    assert SPOT_QUOTA in plan.notes[-1]


def test_the_shipped_sheet_says_how_old_it_is_and_what_it_lacks(catalogue: Catalogue) -> None:
    oregon, virginia = shipped_sheet("us-west-2"), shipped_sheet("us-east-1")
    assert "shipped" in oregon.source
    assert oregon.taken_at == datetime(2026, 7, 20, tzinfo=UTC)
    assert any("scores and quotas" in line for line in oregon.missing)
    assert any("on-demand" in line for line in oregon.missing)
    assert virginia.on_demand["g6.xlarge"] == catalogue.instance("g6.xlarge").ondemand_usd_per_hour
    prices = {(p.instance_type, p.zone): p.usd_per_hour for p in oregon.prices}
    assert prices["g5.12xlarge", "us-west-2a"] == 1.9266
    assert ("g5.12xlarge", "") not in prices
    assert prices["g5.xlarge", ""] == 0.6424
    assert len(offerings_of(oregon, catalogue).offerings) == len(prices)
    nowhere = shipped_sheet("mars-1")
    assert (nowhere.prices, nowhere.on_demand) == ((), {})


def rack(quotas: dict[str, float]) -> OfferingSheet:
    """Eleven nodes that are there, and one type that could be bought beside them."""
    there = SpotPrice(
        instance_type="g5.xlarge",
        zone="rack",
        usd_per_hour=0.0,
        count=11,
        interruptions_per_hour=0.0,
    )
    return SHEET.model_copy(
        update={"prices": (there, SHEET.prices[0]), "on_demand": {}, "quotas": quotas}
    )


def test_nodes_that_are_there_are_counted_and_fall_under_no_quota(catalogue: Catalogue) -> None:
    found = offerings_of(rack({SPOT_QUOTA: 8}), catalogue)
    assert [(o.name, o.max_nodes, o.interruptions_per_hour) for o in found.offerings] == [
        ("g5.xlarge/rack/spot", 11, 0.0),
        ("g6.xlarge/us-east-1a/spot", 2, DEFAULT_SPOT_RATE),
    ]
    few = offerings_of(rack({}), catalogue, [Wanted("g5.xlarge", max_nodes=3)])
    assert [o.max_nodes for o in few.offerings] == [3]


def test_a_plan_takes_all_nodes_that_are_there(
    catalogue: Catalogue, ask: Callable[..., Question]
) -> None:
    sheet = rack({SPOT_QUOTA: 8})
    plan = sheet_answer(ask(offerings_of(sheet, catalogue).offerings), sheet).plan
    nodes = [node.instance_type for node in plan.nodes]
    assert (nodes.count("g5.xlarge"), nodes.count("g6.xlarge")) == (11, 2)
    assert not [note for note in plan.notes if "quota" in note]


@pytest.mark.parametrize(
    "objective", [Objective(Kind.BUDGET, usd_per_hour=0.1), Objective(Kind.COST, deadline_s=1e6)]
)
def test_nodes_that_are_there_cost_nothing_whatever_is_wanted(
    catalogue: Catalogue, ask: Callable[..., Question], objective: Objective
) -> None:
    """The node that could be bought is not: it costs more than nothing."""
    sheet = rack({})
    asked = replace(ask(offerings_of(sheet, catalogue).offerings), objective=objective)
    plan = sheet_answer(asked, sheet).plan
    assert {node.instance_type for node in plan.nodes} == {"g5.xlarge"}
