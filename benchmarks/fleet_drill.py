"""Drills in virtual time over every recorded trace that is shipped, and a thousand nodes for a day.

Each trace is played with its own peak of nodes and a job that keeps them busy for a day. Goodput is
tokens per node hour as a share of nodes that nobody takes, median of the seeds. The reference of
goodput and cost is no handling, where a node's five minutes' worth of requests begin again; that of
finish is on-demand.
"""

import random
import time

from benchmarks.report import Row, write
from shunt.drill.report import DrillReport
from shunt.drill.simulation import DrillSettings, Handling, simulate
from shunt.drill.trace import Trace, find_trace, shipped_traces
from shunt.drill.virtual import virtual_arms

TOKENS_PER_S = 1500.0
SPOT_USD, ON_DEMAND_USD = 0.35, 1.0
DAY_S = 86400.0
SEEDS = 20
LARGE = 480
"""Nodes of the large fleet: a trace's peak, scaled up."""


def main() -> None:
    rows = _large_fleet()
    for name in shipped_traces():
        rows += _played(name, find_trace(name))
    rows += _played(f"g4dn-us-east-1c-11-20 as {LARGE} nodes", _scaled("g4dn-us-east-1c-11-20"))
    write("fleet_drill", rows)


def _scaled(name: str) -> Trace:
    return find_trace(name).scaled(LARGE)


def _large_fleet() -> list[Row]:
    """A day of 1,000 wanted nodes under a trace that changes every minute."""
    rng = random.Random(1)
    steps = [(60.0 * minute, rng.randint(600, 1100)) for minute in range(1440)]
    trace = Trace(tuple(at for at, _ in steps), tuple(nodes for _, nodes in steps))
    settings = DrillSettings(
        1000 * TOKENS_PER_S * DAY_S, 1000, TOKENS_PER_S, SPOT_USD, ON_DEMAND_USD, horizon_s=DAY_S
    )
    started_s = time.perf_counter()
    result = simulate(settings, trace, Handling.SHUNT, rng=random.Random(0))
    taken = time.perf_counter() - started_s
    return [
        Row("1,000 nodes for a day: simulated in", taken, "s", None, None, "< 300", taken < 300),
        Row("interruptions in it", result.interruptions, "nodes"),
    ]


def _played(name: str, trace: Trace) -> list[Row]:
    settings = DrillSettings(
        trace.peak * TOKENS_PER_S * DAY_S, trace.peak, TOKENS_PER_S, SPOT_USD, ON_DEMAND_USD
    )
    reports = [_report(name, settings, trace, seed) for seed in range(SEEDS)]
    first = reports[0]
    ours, none, demand = first.arms
    if ours.finish_s is None or demand.finish_s is None:
        return [Row(f"{name}: not finished within 30 days", ours.interruptions, "interruptions")]
    goodputs = sorted(report.goodput or 0.0 for report in reports)
    middle = SEEDS // 2
    return [
        Row(
            f"{name}: goodput",
            goodputs[middle],
            "of undisturbed",
            (goodputs[0], goodputs[-1]),
            None if none.finish_s is None else _goodput_of_none(first),
        ),
        Row(
            f"{name}: cost",
            ours.cost_usd / demand.cost_usd,
            "of on-demand",
            None,
            none.cost_usd / demand.cost_usd,
        ),
        Row(f"{name}: finish", ours.finish_s / 3600, "h", None, demand.finish_s / 3600),
        Row(f"{name}: interruptions", ours.interruptions, "nodes"),
    ]


def _report(name: str, settings: DrillSettings, trace: Trace, seed: int) -> DrillReport:
    return DrillReport(
        mode="virtual",
        trace=name,
        nodes=settings.nodes,
        spot_usd_per_hour=SPOT_USD,
        on_demand_usd_per_hour=ON_DEMAND_USD,
        arms=tuple(virtual_arms(settings, trace, seed=seed)),
    )


def _goodput_of_none(report: DrillReport) -> float:
    _, none, demand = report.arms
    return none.tokens / none.node_hours / (demand.tokens / demand.node_hours)


if __name__ == "__main__":
    main()
