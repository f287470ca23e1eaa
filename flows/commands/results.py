"""The commands about the results of a run: verify, collect."""

import os
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated

import typer

from flows.commands.finding import find_run
from flows.commands.run import AsJson, Endpoint, RunId, StoreUri, end, overridden, print_json
from flows.drive.drive import Ending, run_command
from flows.exit_code import ExitCode
from flows.screen.bad_rows_view import show_bad_rows, show_error_codes
from flows.screen.view import show_partial
from flows.screen.words import console as console_of
from shunt.checkpoint.done import ShardDone, read_done
from shunt.errors import JobError
from shunt.report.bad_rows import bad_rows
from shunt.report.report import BadRow
from shunt.results.place import Reach, reach_of
from shunt.run.collect import collect as collect_run
from shunt.run.manifest import Manifest
from shunt.run.partial import collect_partial
from shunt.run.verify import verify as verify_run


def verify(
    run_id: RunId,
    store: StoreUri = "runs",
    endpoint_url: Endpoint = None,
    results: Annotated[
        str | None, typer.Option(help="Where a copy of the result files is, if not in their place.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Prove from the log that every prompt has exactly one terminal row and that results match."""
    opened, manifest = find_run(run_id, store, endpoint_url)
    reach = _reach(manifest, store, endpoint_url)
    report = verify_run(opened, manifest, results=results, reach=reach)
    if as_json:
        print_json({"run_id": report.run_id, "ok": report.ok, "num_rows": report.num_rows,
                     "num_segments": report.num_segments, "files": report.files,
                     "problems": report.problems})  # fmt: skip
    else:
        console = console_of()
        for problem in report.problems:
            console.print(f"[red]problem[/]: {problem}", highlight=False, soft_wrap=True)
        if report.ok:
            console.print(
                f"[green]verified[/]: {report.num_rows} rows, each exactly once, from "
                f"{report.num_segments} segments; {', '.join(report.files)} say the same",
                highlight=False,
            )
    raise typer.Exit(ExitCode.OK if report.ok else ExitCode.FAILED)


def collect(
    run_id: RunId,
    store: StoreUri = "runs",
    endpoint_url: Endpoint = None,
    output: Annotated[str | None, typer.Option(help="Another directory than the job's.")] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Write the rows that are finished, whatever is open.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write the result files of a run whose rows are all there."""
    opened, manifest = find_run(run_id, store, endpoint_url)
    reach, now = _reach(manifest, store, endpoint_url), datetime.now(UTC)
    if partial:
        part = collect_partial(opened, manifest, output=output, now=now, reach=reach)
        if as_json:
            print_json(part.model_dump(mode="json"))
        else:
            show_partial(console_of(), part)
        return
    summary = collect_run(opened, manifest, output=output, now=now, reach=reach)
    end(Ending(ExitCode.OK, manifest.run_id, summary=summary), as_json=as_json)


def errors(
    run_id: RunId,
    store: StoreUri = "runs",
    endpoint_url: Endpoint = None,
    code: Annotated[str | None, typer.Option(help="List the rows of this code.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say which rows have no answer, and why: by code, or row by row of one code.

    Of a shard that is not done yet, those that preflight refused.
    """
    opened, manifest = find_run(run_id, store, endpoint_url)
    done: dict[str, ShardDone] = {}
    read_done(opened, manifest.run_id, into=done)
    by_code: dict[str, list[BadRow]] = defaultdict(list)
    for row in bad_rows(opened, manifest, done):
        by_code[row.code].append(row)
    if code is not None and code not in by_code:
        known = ", ".join(by_code) or "no row is bad"
        raise JobError(f"--code {code}: no row of {manifest.run_id} has it (there: {known})")
    if as_json:
        chosen = by_code if code is None else {code: by_code[code]}
        counts = {name: len(rows) for name, rows in chosen.items()}
        listed = [row.model_dump() for rows in chosen.values() for row in rows]
        print_json({"run_id": manifest.run_id, "counts": counts, "rows": listed})
    elif code is not None:
        show_bad_rows(console_of(), by_code[code])
    else:
        listing, again = run_command("errors", manifest), run_command("retry", manifest)
        show_error_codes(console_of(), listing, again, by_code)


def _reach(manifest: Manifest, store: str, endpoint_url: str | None) -> Reach:
    """The way to the results, by the store as it was found now."""
    return reach_of(overridden(manifest, store, endpoint_url, None).job, os.environ)


COMMANDS: dict[str, Callable[..., None]] = {"verify": verify, "collect": collect, "errors": errors}
