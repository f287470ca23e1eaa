"""`shunt plan` and `shunt calibrate`: the planner at the command line.

Plain functions with Typer annotations; `flows/cli.py` registers them. Exit codes: 0 a plan was
found, 1 there is none, 2 the input is wrong.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel, ConfigDict, ValidationError
from rich.console import Console

from flows.commands.offers import Region, offering_sheet, one_line
from flows.screen.plan_view import plan_console, show_explanation, show_plan
from flows.screen.words import console as console_of
from placement.answer.picture import draw_html, draw_png
from placement.answer.plan_builder import Answer, answer
from placement.answer.replan import replan_answer
from placement.answer.sheet_answer import sheet_answer
from placement.catalogue.constants import load_constants
from placement.catalogue.hardware import load_catalogue
from placement.catalogue.known_model import known_shape
from placement.catalogue.snapshot import ON_DEMAND_REGION
from placement.errors import BadInput, Infeasible
from placement.estimate.calibration import calibrate as fit_constants
from placement.estimate.calibration import error_summary
from placement.estimate.measured_run import engine_profile, predict, read_runs
from placement.question.planning_input import (
    PlanningInput,
    catalogue_of,
    make_question,
    offering_rows,
)
from placement.question.question import Question
from placement.question.sheet_offerings import Wanted, offerings_of
from shunt.errors import JobError
from shunt.job.mistakes import mistakes_of
from shunt.job.yaml_text import read_yaml_file
from shunt.plan.offering_sheet import OfferingSheet
from shunt.plan.plan import Plan

OK, INFEASIBLE = 0, 1


class _ModelSection(BaseModel):
    """The part of a job's `model:` that planning reads."""

    model_config = ConfigDict(extra="ignore")

    path: str


class PlanSections(BaseModel):
    """The two sections of a job file that planning reads; the others are not its business."""

    model_config = ConfigDict(extra="ignore")

    model: _ModelSection
    plan: PlanningInput


def plan(
    job: Annotated[Path, typer.Argument(help="Job YAML with `model:` and `plan:`.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Say why, in tables.")] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the pipelines into this .png or .html file.")
    ] = None,
    current: Annotated[
        Path | None, typer.Option(help="Plan JSON that runs now: replan from it, if that pays.")
    ] = None,
    horizon_hours: Annotated[
        float, typer.Option(help="With --current: hours that a new plan has to pay back in.")
    ] = 1.0,
    offers: Annotated[
        str | None,
        typer.Option(
            help="Prices and quotas: `live` (AWS now), `offline` (the last look or the shipped "
            "snapshot), or a file of `shunt offers --json`. Without offerings in the job: all.",
        ),
    ] = None,
    region: Region = ON_DEMAND_REGION,
) -> None:
    """Find the best pipelines for a job, with a bound on how much better any plan could be."""
    console = plan_console()
    errors = console_of(stderr=True)
    try:
        if plot is not None and plot.suffix not in {".png", ".html"}:
            raise BadInput(f"--plot {plot}: the file must end in .png or .html")
        sections = read_sections(job)
        running = None if current is None else _read_plan(current)
        sheet = None if offers is None else offering_sheet(offers, region, now=datetime.now(UTC))
        found = _answer(sections, job.parent, running, horizon_hours, sheet, errors)
    except Infeasible as error:
        _say_infeasible(error, errors, as_json=as_json)
        raise typer.Exit(INFEASIBLE) from error
    if plot is not None:
        draw = draw_png if plot.suffix == ".png" else draw_html
        draw(found, plot)
    if as_json:
        typer.echo(found.plan.model_dump_json(indent=2))
        return
    show_plan(found, console)
    if explain:
        show_explanation(found, console)
    if plot is not None:
        console.print(f"picture: {plot}")


def _answer(
    sections: PlanSections,
    folder: Path,
    running: Plan | None,
    horizon_hours: float,
    sheet: OfferingSheet | None,
    errors: Console,
) -> Answer:
    """The plan, or what to change of the running one; with a sheet, within its quotas."""

    def solved(question: Question) -> Answer:
        if running is None:
            return answer(question)
        return replan_answer(question, running, horizon_s=horizon_hours * 3600.0)

    model = sections.model.path
    if sheet is None:
        return solved(make_question(sections.plan, model, folder=folder))
    wanted = [
        Wanted(o.instance_type, o.market, o.zone, o.max_nodes, o.interruptions_per_hour)
        for o in offering_rows(sections.plan, folder)
    ]
    found = offerings_of(sheet, catalogue_of(sections.plan, folder), wanted)
    told = f"{len(found.offerings)} offerings: {one_line(sheet, datetime.now(UTC))}"
    for line in (told, *sheet.missing, *found.notes):
        errors.print(line, style="dim", markup=False, soft_wrap=True)
    question = make_question(sections.plan, model, folder=folder, offerings=found.offerings)
    return sheet_answer(question, sheet, plan=solved)


def _read_plan(path: Path) -> Plan:
    try:
        return Plan.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"plan {path}: cannot be read ({error.strerror})") from error
    except ValidationError as error:
        raise BadInput(f"plan {path}: {_first(error)}") from error


def read_sections(job: Path) -> PlanSections:
    """The job's model and plan sections. Raises `JobError` naming the key."""
    tree, places = read_yaml_file(job, expected="a mapping with `model:` and `plan:`")
    places.page = "docs/planning.md"
    try:
        return PlanSections.model_validate(tree)
    except ValidationError as error:
        raise JobError("\n".join(mistakes_of(error, tree, PlanSections, places))) from error


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}"


def _say_infeasible(error: Infeasible, errors: Console, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"infeasible": str(error), "advice": list(error.advice)}, indent=2))
        return
    errors.print(f"no plan: {error}", style="red", markup=False, soft_wrap=True)
    for line in error.advice:
        errors.print(f"  would help: {line}", markup=False, soft_wrap=True)


def calibrate(
    runs: Annotated[Path, typer.Argument(help="CSV of measured runs; see docs/planning.md.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Write the fitted constants here (plan.catalogue.constants)."),
    ] = None,
    start: Annotated[
        Path | None, typer.Option(help="Constants to begin from; default: the shipped ones.")
    ] = None,
    gpus: Annotated[
        list[Path] | None, typer.Option(help="CSV of further GPUs, as catalogue/gpus.csv.")
    ] = None,
    engine: Annotated[
        str, typer.Option(help="Constants that the rows belong to; default: by engine_version.")
    ] = "",
    pool: Annotated[
        bool, typer.Option(help="Fit the pooled constants too, not only these GPUs' own.")
    ] = False,
    predict_only: Annotated[
        bool, typer.Option("--predict", help="Fit nothing: print row_id,req_s predicted as CSV.")
    ] = False,
) -> None:
    """Fit the estimator to measured runs, or predict runs with the constants as they are."""
    console = console_of()
    catalogue = load_catalogue(gpus or [])
    constants = load_constants(start)
    rows = read_runs(
        runs,
        catalogue=catalogue,
        shape_of=known_shape,
        engine_of=lambda e, v, g: engine or engine_profile(e, v, g),
    )
    if predict_only:
        typer.echo("row_id,measured_req_s,predicted_req_s")
        for row in rows:
            typer.echo(f"{row.row_id},{row.requests_per_s or ''},{predict(row, constants):.6g}")
        return
    measured = [row for row in rows if row.requests_per_s]
    if not measured:
        raise BadInput(f"runs {runs}: no row has req_s")
    only = None if pool else frozenset(row.gpu.name for row in measured)
    fit = fit_constants(measured, constants, gpus_only=only)
    console.print(f"before: {error_summary(measured, constants)}", markup=False)
    console.print(f"after:  {error_summary(measured, fit.constants)}", markup=False)
    if out is not None:
        out.write_text(fit.constants.model_dump_json(indent=1) + "\n", encoding="utf-8")
        console.print(f"constants: {out}", markup=False)
