"""A real drill on this machine (fake engine, four workers), beside its forecast in virtual time.

The reference of each row is what the linear model of `shunt drill` says of the same job and trace.
Its start-up is what the undisturbed run took beyond its tokens, so that the load of this machine is
in both, and the forecast of that run is right by construction.
"""

import json
import os
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from benchmarks.report import Row, write
from flows.drill.estimate import settings_of, speed_of
from flows.drill.market import DrillMarket, Prices
from flows.drill.run import EventView, RealDrill
from flows.surroundings import surroundings
from shunt.drill.report import DrillArm, DrillReport
from shunt.drill.simulation import Handling
from shunt.drill.trace import find_trace
from shunt.drill.virtual import virtual_arms
from shunt.job.job import Job
from shunt.job.job_file import check_job

TRACE = "g4dn-us-east-1d-11-23"
WORKERS, ROWS, MAX_TOKENS = 4, 1400, 64
SPEEDUP = 240.0
NOTICE_S, UNNOTICED = 1200.0, 0.1
"""A notice of 5 s of the wall clock: a worker here needs about one to save and leave."""
SPOT_USD, ON_DEMAND_USD = 0.2523, 0.526


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        job = _job(folder)
        os.chdir(folder)
        market = DrillMarket(
            name=TRACE,
            trace=find_trace(TRACE).scaled(WORKERS),
            nodes=WORKERS,
            prices=Prices(SPOT_USD, ON_DEMAND_USD),
            notice_s=NOTICE_S,
            unnoticed=UNNOTICED,
            seed=0,
        )
        play = RealDrill(job, market, folder / "drill", SPEEDUP)
        around = surroundings(job, threading.Event())
        quiet = EventView(Console(quiet=True))
        real = [play.run(handling, around, quiet) for handling in _ORDER]
        virtual = _forecast(job, folder, market, undisturbed=real[-1])
        rows = _rows(real, virtual)
    os.chdir(Path(__file__).parents[1])
    write("fleet_drill_real", rows)


_ORDER = (Handling.SHUNT, Handling.NONE, Handling.ON_DEMAND)


def _job(folder: Path) -> Job:
    prompts = [json.dumps({"id": f"row-{n}", "prompt": f"prompt {n}"}) for n in range(ROWS)]
    (folder / "prompts.jsonl").write_text("\n".join(prompts) + "\n")
    return check_job(
        {
            "name": "drill",
            "model": {
                "path": "none",
                "engine_kind": "fake",
                "fake_tokens_per_s": 25,
                "engine": {"max_num_seqs": 12},
            },
            "input": {"path": str(folder / "prompts.jsonl")},
            "sampling": {"max_tokens": MAX_TOKENS, "ignore_eos": True},
            "fleet": {"workers": WORKERS},
            "shard_prompts": 60,
            "checkpoint_interval_s": 1,
            "lease_term_s": 3,
        },
        source="benchmark",
    )


def _forecast(
    job: Job, folder: Path, market: DrillMarket, *, undisturbed: DrillArm
) -> list[DrillArm]:
    speed = speed_of(job, tokens=None, tokens_per_s=None, folder=folder)
    working_s = speed.total_tokens / (WORKERS * speed.node_tokens_per_s / SPEEDUP)
    assert undisturbed.finish_s is not None
    startup_s = max(0.0, undisturbed.finish_s - working_s)
    # In the trace's seconds, of which one second of the wall clock has SPEEDUP.
    settings = settings_of(job, market, speed, startup_s=startup_s)
    settings = replace(
        settings,
        tokens_per_s=settings.tokens_per_s / SPEEDUP,
        checkpoint_s=settings.checkpoint_s * SPEEDUP,
        request_s=settings.request_s * SPEEDUP,
        drain_s=SPEEDUP,
    )
    ours, _, demand = virtual_arms(settings, market.trace, seed=0)
    _, none, _ = virtual_arms(replace(settings, unnoticed=1.0), market.trace, seed=0)
    return [ours, none, demand]


def _rows(real: Sequence[DrillArm], virtual: Sequence[DrillArm]) -> list[Row]:
    names = ("shunt", "no handling", "on-demand")
    rows: list[Row] = []
    for name, measured, forecast in zip(names, real, virtual, strict=True):
        for what, unit, value, reference in (
            ("finish", "h", (measured.finish_s or 0) / 3600, (forecast.finish_s or 0) / 3600),
            ("cost", "USD", measured.cost_usd, forecast.cost_usd),
            ("tokens again", "tokens", measured.tokens_again, forecast.tokens_again),
            ("interruptions", "nodes", measured.interruptions, forecast.interruptions),
        ):
            rows.append(Row(f"{name}: {what}", value, unit, None, reference))
    return [*rows, _goodput(real, virtual)]


def _goodput(real: Sequence[DrillArm], virtual: Sequence[DrillArm]) -> Row:
    measured, forecast = (
        DrillReport(
            mode="real",
            trace=TRACE,
            nodes=WORKERS,
            spot_usd_per_hour=SPOT_USD,
            on_demand_usd_per_hour=ON_DEMAND_USD,
            arms=tuple(arms),
        ).goodput
        or 0.0
        for arms in (real, virtual)
    )
    return Row("goodput", measured, "of undisturbed", None, forecast)


if __name__ == "__main__":
    main()
