"""Drills over recorded traces (paths on the command line), and a thousand nodes for a day.

The trace files are Bamboo's step functions: `instance_type,zone,start_local,t_s,active_instances`.
"""

import csv
import random
import sys
import time
from pathlib import Path

from benchmarks.report import Row, write
from shunt.drill.simulation import DrillSettings, Handling, simulate
from shunt.drill.trace import Trace, read_trace, recording_of

TOKENS_PER_S = 1500.0
SPOT_USD, ON_DEMAND_USD = 0.35, 1.0
DAY_S = 86400.0
SEEDS = 20


def main() -> None:
    rows = _large_fleet()
    for argument in sys.argv[1:]:
        path = Path(argument)
        with path.open(newline="") as lines:
            pools = sorted({recording_of(row) for row in csv.DictReader(lines)})
        for pool in pools:
            rows += _against(read_trace(path, pool=pool), pool)
    write("fleet_drill", rows)


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


def _against(trace: Trace, name: str) -> list[Row]:
    nodes = max(trace.nodes)
    settings = DrillSettings(
        nodes * TOKENS_PER_S * 6 * 3600, nodes, TOKENS_PER_S, SPOT_USD, ON_DEMAND_USD
    )
    ours, none, demand = (
        simulate(settings, trace, handling, rng=random.Random(0))
        for handling in (Handling.SHUNT, Handling.NONE, Handling.ON_DEMAND)
    )
    again = [
        simulate(settings, trace, Handling.SHUNT, rng=random.Random(seed)).tokens_again
        for seed in range(SEEDS)
    ]
    mean_again = sum(again) / SEEDS
    if ours.finish_s is None or none.finish_s is None or demand.finish_s is None:
        return [Row(f"{name}: did not finish", 0, "")]
    share = settings.total_tokens / (settings.total_tokens + mean_again)
    return [
        Row(f"{name}: finish", ours.finish_s / 3600, "h", None, none.finish_s / 3600),
        Row(
            f"{name}: finish, against on-demand",
            ours.finish_s / 3600,
            "h",
            None,
            demand.finish_s / 3600,
        ),
        Row(f"{name}: cost", ours.cost_usd, "USD", None, none.cost_usd),
        Row(f"{name}: cost, against on-demand", ours.cost_usd, "USD", None, demand.cost_usd),
        Row(
            f"{name}: tokens again, mean of {SEEDS} seeds",
            mean_again,
            "tokens",
            (min(again), max(again)),
            none.tokens_again,
        ),
        Row(f"{name}: interruptions", ours.interruptions, "nodes"),
        Row(f"{name}: tokens kept", share, "share"),
    ]


if __name__ == "__main__":
    main()
