"""`shunt drill`: what a recorded trace of spot capacity does to a job, and what saving is worth."""

import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from flows.drill.estimate import Speed, settings_of, speed_of
from flows.drill.market import DrillMarket, prices_of
from flows.drill.run import EventView, RealDrill
from flows.screen.words import console as console_of
from flows.surroundings import state_directory, surroundings
from shunt.drill.report import DrillArm, DrillReport, sentences
from shunt.drill.simulation import Handling
from shunt.drill.trace import find_trace, shipped_traces
from shunt.drill.virtual import virtual_arms
from shunt.job.job import Job
from shunt.job.job_file import load_job

NAMES = {
    Handling.SHUNT: "spot, shunt",
    Handling.NONE: "spot, no handling",
    Handling.ON_DEMAND: "on-demand",
}


def drill(
    job: Annotated[Path, typer.Argument(metavar="JOB", help="Job file (YAML).")],
    trace: Annotated[str, typer.Option(help="A shipped trace, `list`, or a CSV file.")],
    real: Annotated[
        bool, typer.Option("--real", help="Run the job on this machine's workers, three times.")
    ] = False,
    speedup: Annotated[
        float, typer.Option(min=1, help="With --real: seconds of the trace in one second.")
    ] = 60.0,
    nodes: Annotated[
        int | None,
        typer.Option(min=1, max=100_000, help="Peak of the trace; else its own (real: the job's)."),
    ] = None,
    tokens: Annotated[float | None, typer.Option(min=1, help="Output tokens in all.")] = None,
    tokens_per_s: Annotated[float | None, typer.Option(min=0.001, help="Of one node.")] = None,
    spot_price: Annotated[float | None, typer.Option(min=0, help="USD per node hour.")] = None,
    on_demand_price: Annotated[float | None, typer.Option(min=0, help="USD per node hour.")] = None,
    startup_s: Annotated[float, typer.Option(min=0, help="Virtual: launch to first token.")] = 240,
    notice_s: Annotated[float, typer.Option(min=0, help="Between a notice and the end.")] = 120,
    unnoticed: Annotated[
        float, typer.Option(min=0, max=1, help="Share of interruptions without a notice.")
    ] = 0.1,
    pool: Annotated[str, typer.Option(help="Start of the name of one recording of a file.")] = "",
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Override a key of the job.")
    ] = None,
    seed: Annotated[int, typer.Option()] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Play a job against a recorded spot trace, and compare with on-demand and with no handling.

    In virtual time a linear model of nodes; with --real the job's own workers, with real notices
    and kills, into .shunt/drills. Leases, checkpoints and engine starts are not sped up.
    """
    if trace == "list":
        _list_traces()
        return
    workers = [f"fleet.workers={nodes}"] if real and nodes else []
    loaded = load_job(job, [*(overrides or []), *workers])
    recorded, shipped = find_trace(trace, pool=pool), shipped_traces().get(trace)
    instance_type = shipped.instance_type if shipped else pool.split("/")[0]
    peak = loaded.fleet.workers if real else nodes or recorded.peak
    market = DrillMarket(
        name=trace,
        trace=recorded.scaled(peak),
        nodes=peak,
        prices=prices_of(instance_type, spot=spot_price, on_demand=on_demand_price),
        notice_s=notice_s,
        unnoticed=unnoticed,
        seed=seed,
    )
    console = console_of(stderr=True) if as_json else console_of()
    if real:
        report = _played(loaded, market, speedup, console)
    else:
        speed = speed_of(loaded, tokens=tokens, tokens_per_s=tokens_per_s, folder=job.parent)
        report = _simulated(loaded, market, speed, startup_s)
    if as_json:
        typer.echo(report.model_dump_json(indent=2))
    else:
        _show(report, console)


def _list_traces() -> None:
    for name, shipped in shipped_traces().items():
        typer.echo(f"{name}: {shipped.what} ({shipped.source}; licence: {shipped.licence})")


def _played(job: Job, market: DrillMarket, speedup: float, console: Console) -> DrillReport:
    """Of the three runs on this machine, one after the other: they share it."""
    play = RealDrill(job, market, _new_directory(job), speedup)
    around = surroundings(play.job_of(Handling.SHUNT), threading.Event())
    arms: list[DrillArm] = []
    for handling in NAMES:
        console.print(f"[bold]{NAMES[handling]}[/], in {play.directory / handling.value}")
        arms.append(play.run(handling, around, EventView(console)))
    return _report("real", market, arms, speedup=speedup)


def _simulated(job: Job, market: DrillMarket, speed: Speed, startup_s: float) -> DrillReport:
    settings = settings_of(job, market, speed, startup_s=startup_s)
    arms = virtual_arms(settings, market.trace, seed=market.seed)
    return _report("virtual", market, arms, told=speed.told)


def _report(
    mode: Literal["virtual", "real"],
    market: DrillMarket,
    arms: Sequence[DrillArm],
    *,
    speedup: float = 1.0,
    told: Sequence[str] = (),
) -> DrillReport:
    return DrillReport(
        mode=mode,
        trace=market.name,
        nodes=market.nodes,
        speedup=speedup,
        spot_usd_per_hour=market.prices.spot_usd_per_hour,
        on_demand_usd_per_hour=market.prices.on_demand_usd_per_hour,
        assumptions=(*told, *market.prices.told),
        arms=tuple(arms),
    )


def _new_directory(job: Job) -> Path:
    """A drill never goes on with an earlier one."""
    return state_directory() / "drills" / f"{job.name}-{datetime.now(UTC):%Y%m%dT%H%M%S}"


def _show(report: DrillReport, console: Console) -> None:
    table = Table()
    for column in ("handling", "finish", "cost", "tokens again", "interruptions", "node hours"):
        table.add_column(column, overflow="fold")  # a number that is cut is another number
    for arm in report.arms:
        table.add_row(
            NAMES[arm.handling],
            "never" if arm.finish_s is None else f"{arm.finish_s / 3600:.2f} h",
            f"{arm.cost_usd:.2f} USD",
            f"{arm.tokens_again:,.0f}",
            str(arm.interruptions),
            f"{arm.node_hours:.1f}",
        )
    console.print(table)
    faster = f", {report.speedup:g} times as fast as the clock" if report.mode == "real" else ""
    title = f"{report.mode}: {report.nodes} nodes at most, trace {report.trace}{faster}"
    for line in (title, *report.assumptions, *sentences(report)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
