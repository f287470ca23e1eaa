"""The commands about runs: run, resume, status, cancel, preflight."""

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from pydantic import TypeAdapter

from flows.commands.finding import find_run, opened_store, reached
from flows.drive.drive import (
    Ending,
    check_job,
    drive,
    go_on_command,
    join_command,
    partial_command,
    prepare_run,
    resume,
    run_command,
)
from flows.drive.known_model import known_model
from flows.exit_code import ExitCode
from flows.screen.run_view import show_runs, show_status
from flows.screen.view import LiveView, PlainView, nobody_line, show_ending, show_preflight
from flows.screen.words import console as console_of
from flows.surroundings import surroundings
from shunt.dataset.preflight import PreflightReport
from shunt.errors import JobError
from shunt.job.job import Job
from shunt.job.job_file import Tree, job_schema, load_job, override_job
from shunt.results.summary import read_summary
from shunt.run.cancellation import cancel as cancel_run
from shunt.run.decisive import decisive
from shunt.run.event import Event, EventKind, record
from shunt.run.listing import RunLine, read_lines
from shunt.run.manifest import Manifest
from shunt.run.prepare import preflight as preflight_job
from shunt.run.showing import read_showings
from shunt.run.status import RunState, StatusReader, status_tree

JobPath = Annotated[Path, typer.Argument(metavar="JOB", help="Job file (YAML).")]
RunId = Annotated[
    str, typer.Argument(metavar="RUN", help="Run id; its unique beginning is enough.")
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="Override a key: --set fleet.workers=2")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object to stdout.")]
Strict = Annotated[bool, typer.Option("--strict", help="Refuse to start when a row is bad.")]
Sample = Annotated[
    int | None, typer.Option(min=1, help="Run the first N rows only, as their own run.")
]
StoreUri = Annotated[str, typer.Option("--store", help="Store of the run.", envvar="SHUNT_STORE")]
Endpoint = Annotated[
    str | None, typer.Option(help="S3 endpoint that is not AWS.", envvar="SHUNT_ENDPOINT_URL")
]
Plainly = Annotated[
    bool, typer.Option("--no-prefect", help="Drive the run directly, without a Prefect flow run.")
]

_errors = console_of(stderr=True)
RUN_STOPS = "stopping: workers save what they have and leave"
_DRIVE_STOPS = "stopping: workers that joined go on; `shunt cancel` ends them"


def run(
    job: JobPath,
    overrides: Overrides = None,
    strict: Strict = False,
    sample: Sample = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Preflight only; start nothing.")
    ] = False,
    prepare_only: Annotated[
        bool, typer.Option("--prepare", help="Prepare the run, for workers to join; start nothing.")
    ] = False,
    no_reuse: Annotated[
        bool,
        typer.Option("--no-reuse", help="Generate also what finished runs have answered."),
    ] = False,
    no_prefect: Plainly = False,
    as_json: AsJson = False,
) -> None:
    """Generate every row of a job. Run it again to go on where it stopped.

    Exit codes: 0 all rows are good; 1 failed; 2 the job or its input is wrong; 3 more error rows
    than allowed; 4 deadline or budget reached; 75 interrupted, run again.
    """
    loaded = _load(job, overrides, strict)
    if no_reuse:
        loaded = loaded.model_copy(update={"reuse": False})
    if dry_run:
        _preflight(loaded, as_json=as_json)
        return
    check_job(loaded)
    store = reached(loaded.store)
    with stop_on_signals(_stops(loaded)) as stop, view_of(as_json=as_json) as watcher:
        around = surroundings(loaded, stop)
        if prepare_only:
            manifest = prepare_run(loaded, store, around, watcher, sample=sample, checked=True)
            if as_json:
                print_json({"run_id": manifest.run_id, "num_rows": manifest.num_rows})
            else:
                print_lines([f"join it with: {run_command('worker', manifest)}"])
            return
        if no_prefect:
            ending = drive(loaded, store, around, watcher, sample=sample, checked=True)
        else:
            # Prefect takes two seconds to import; only this command pays for it.
            from flows.prefect.session import run_flow

            ending = run_flow(loaded, watcher, stop, tell=_tell, sample=sample)
    end(ending, as_json=as_json)


def resume_command(
    run_id: RunId,
    store: StoreUri = "runs",
    endpoint_url: Endpoint = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Go on with a run, from its store alone."""
    opened, manifest = find_run(run_id, store, endpoint_url)
    manifest = overridden(manifest, store, endpoint_url, overrides)
    with stop_on_signals(_stops(manifest.job)) as stop, view_of(as_json=as_json) as watcher:
        watcher.prepared(manifest)
        ending = resume(manifest, opened, surroundings(manifest.job, stop), watcher)
    end(ending, as_json=as_json)


def status(
    run_id: Annotated[
        str, typer.Argument(metavar="[RUN]", help="Run id; none: list all runs.")
    ] = "",
    store: StoreUri = "runs",
    endpoint_url: Endpoint = None,
    as_json: AsJson = False,
) -> None:
    """What a run looks like now."""
    if not run_id:
        runs = list(read_lines(opened_store(store, endpoint_url, must_exist=True)))
        if as_json:
            print_json({"runs": TypeAdapter(list[RunLine]).dump_python(runs, mode="json")})
        else:
            show_runs(console_of(), runs, now=datetime.now(UTC))
        return
    opened, manifest = find_run(run_id, store, endpoint_url)
    seen = StatusReader(opened, manifest.run_id).read()
    now = datetime.now(UTC)
    if any(showing.is_left_behind(now) for showing in read_showings(opened, manifest.run_id)):
        # Prefect takes two seconds to import: only for a flow run that was killed.
        from flows.prefect.session import settle_if_reachable

        settle_if_reachable(opened, manifest.run_id, now=now)
    join = join_command(manifest) if seen.state is RunState.OPEN else ""
    if as_json:
        print_json({**status_tree(seen), **({"join": join} if join else {})})
    else:
        show_status(console_of(), seen)
        if join and not seen.living:
            print_lines([nobody_line(join)])


def cancel(
    run_id: RunId, store: StoreUri = "runs", endpoint_url: Endpoint = None, as_json: AsJson = False
) -> None:
    """Ask every worker of a run to save and leave. `shunt resume` lifts it."""
    opened, manifest = find_run(run_id, store, endpoint_url)
    name = manifest.run_id
    finished = read_summary(opened, name) is not None
    first = not finished and cancel_run(opened, name)
    if first:
        record(opened, name, Event(at=datetime.now(UTC), kind=EventKind.CANCELLED))
    if as_json:
        print_json({"run_id": name, "cancelled": not finished, "finished": finished,
                     "was_cancelled": not finished and not first})  # fmt: skip
    elif finished:
        print_lines([f"{name} is finished; there is nothing to cancel"])
    else:
        again = "" if first else " already"
        print_lines(
            [
                f"{name} is{again} cancelled; its workers save and leave",
                f"Go on with: {go_on_command(manifest)}",
                f"What is finished: {partial_command(manifest)}",
            ]
        )


def preflight(
    job: JobPath, overrides: Overrides = None, strict: Strict = False, sample: Sample = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Check a job and every row of its input; with --sample N, then run the first N rows."""
    loaded = _load(job, overrides, strict)
    if sample is None:
        _preflight(loaded, as_json=as_json)
        return
    show_preflight(_errors if as_json else console_of(), _preflight_report(loaded))
    run(job, overrides, strict, sample, no_prefect=True, as_json=as_json)


def schema() -> None:
    """Print the JSON Schema of job files, for editors."""
    print_json(job_schema())


COMMANDS: dict[str, Callable[..., None]] = {
    "run": run,
    "resume": resume_command,
    "status": status,
    "cancel": cancel,
    "preflight": preflight,
    "schema": schema,
}


def _stops(job: Job) -> str:
    return _DRIVE_STOPS if job.fleet.kind == "joined" else RUN_STOPS


def _tell(text: str) -> None:
    _errors.print(text, style="dim", highlight=False)


def _load(path: Path, overrides: list[str] | None, strict: bool) -> Job:
    return load_job(path, [*(overrides or []), *(["errors.strict=true"] if strict else [])])


def _preflight(job: Job, *, as_json: bool) -> None:
    report = _preflight_report(job)
    if as_json:
        counts = {"num_good_rows": report.num_good_rows, "num_error_rows": report.num_error_rows}
        print_json(counts | TypeAdapter(PreflightReport).dump_python(report, mode="json"))
    else:
        show_preflight(console_of(), report)
    if job.errors.strict:
        report.require_clean()
    if report.num_good_rows == 0:
        _errors.print("[bold red]error[/]: no row of the input can run", highlight=False)
        raise typer.Exit(ExitCode.USAGE)


def _preflight_report(job: Job) -> PreflightReport:
    check_job(job)
    deadline = job.limits.deadline
    if deadline is not None and deadline <= datetime.now(UTC):
        raise JobError(f"limits.deadline: {deadline.isoformat()} has passed; set a later one")
    with known_model(job, os.environ, clock=datetime.now(UTC)) as model:
        return preflight_job(job, model.renderer, card=model.card, compiler=model.compiler)


def overridden(
    manifest: Manifest, uri: str, endpoint_url: str | None, overrides: list[str] | None
) -> Manifest:
    """The manifest's job with the store that it was found in, and what the user overrides.

    Raises `JobError` for a key that decides results: with another value it is another run.
    """
    job = retold(manifest, uri, endpoint_url, overrides)
    if decisive(job) != decisive(manifest.job):
        tree = _told(manifest, uri, endpoint_url)
        others = [o for o in overrides or [] if _decides(tree, o, manifest.job)]
        raise JobError(
            f"--set {' --set '.join(others or overrides or [])}: this decides results, so it makes "
            "another run; use `shunt run`"
        )
    return manifest.model_copy(update={"job": job})


def retold(
    manifest: Manifest, uri: str, endpoint_url: str | None, overrides: list[str] | None
) -> Job:
    """The same of another run's job, which may decide other results. Raises `JobError`."""
    return override_job(_told(manifest, uri, endpoint_url), overrides or [])


def _told(manifest: Manifest, uri: str, endpoint_url: str | None) -> Tree:
    tree = manifest.job.model_dump(mode="json", by_alias=True, exclude_unset=True)
    if manifest.job.store.uri != uri:
        tree["store"] = {"uri": uri, "endpoint_url": endpoint_url}
    return tree


def _decides(tree: Tree, override: str, job: Job) -> bool:
    """Whether it does by itself: some keys are only valid together."""
    try:
        return decisive(override_job(tree, [override])) != decisive(job)
    except JobError:
        return False


@contextmanager
def stop_on_signals(told_user: str) -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set. A second Ctrl-C ends the process at once."""
    stop = threading.Event()

    def told(_number: int, _frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        _errors.print(told_user, style="yellow")
        stop.set()

    before = {number: signal.signal(number, told) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def view_of(*, as_json: bool) -> Iterator[PlainView]:
    console = _errors if as_json else console_of()
    with LiveView(console) if console.is_terminal else PlainView(console) as view:
        yield view


def end(ending: Ending, *, as_json: bool) -> None:
    if as_json:
        summary = ending.summary
        print_json(
            {
                "run_id": ending.run_id,
                "exit_code": int(ending.code),
                "reason": ending.reason,
                "workers_lost": ending.num_lost,
                "go_on": ending.go_on,
                "collect_partial": ending.partial,
                "spent_usd": ending.spend and float(ending.spend.usd),
                "summary": summary and summary.model_dump(mode="json", exclude={"cuts"}),
            }
        )
    else:
        show_ending(console_of(), ending)
    raise typer.Exit(ending.code)


def print_json(value: object) -> None:
    print_lines([json.dumps(value, indent=2, ensure_ascii=False)])


def print_lines(lines: list[str]) -> None:
    for line in lines:
        typer.echo(line)
