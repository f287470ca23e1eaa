"""What a drill comes to, in sums done by hand."""

from dataclasses import replace

from shunt.drill.report import DrillArm, DrillReport, sentences
from shunt.drill.simulation import Handling
from shunt.drill.trace import Trace
from shunt.drill.virtual import virtual_arms
from tests.shunt.drill.settings import SETTINGS


def arm(handling: Handling, finish_s: float | None, usd: float, hours: float) -> DrillArm:
    return DrillArm(
        handling=handling,
        finish_s=finish_s,
        cost_usd=usd,
        tokens=1000,
        tokens_again=0,
        interruptions=0,
        node_hours=hours,
    )


def report(*arms: DrillArm) -> DrillReport:
    return DrillReport(
        mode="virtual",
        trace="t",
        nodes=1,
        spot_usd_per_hour=1,
        on_demand_usd_per_hour=3,
        arms=arms,
    )


def test_shares_against_on_demand_and_against_no_handling() -> None:
    """Ten node hours for what undisturbed nodes do in eight: a goodput of 80 %."""
    made = report(
        arm(Handling.SHUNT, 7200, 10, 10),
        arm(Handling.NONE, 14400, 20, 20),
        arm(Handling.ON_DEMAND, 3600, 24, 8),
    )
    assert made.goodput == 0.8
    assert sentences(made) == [
        "against on-demand: 42% of the cost, 2.00 of the time",
        "against no handling: 50% of the cost, 0.50 of the time",
        "goodput: 80.0% of undisturbed nodes' tokens per node hour",
    ]


def test_what_does_not_finish_has_no_share() -> None:
    made = report(arm(Handling.SHUNT, None, 10, 10), arm(Handling.ON_DEMAND, 3600, 24, 8))
    assert made.goodput is None
    assert sentences(made) == ["against on-demand: one of them does not finish"]


def test_virtual_arms_meet_the_same_trace() -> None:
    settings = replace(SETTINGS, request_s=0.0)
    gap = Trace((0.0, 600.0, 900.0), (10, 0, 10))
    ours, none, demand = virtual_arms(settings, gap, seed=0)
    assert (ours.finish_s, none.finish_s, demand.finish_s) == (1500, 1500, 1100)
    assert (ours.interruptions, none.interruptions, demand.interruptions) == (10, 10, 0)
    assert demand.node_hours == 11_000 / 3600
