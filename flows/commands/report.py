"""`shunt report`: the story of a run, as a page for people and as JSON for programs."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from flows.commands.finding import find_run
from flows.commands.output_file import writing
from flows.commands.run import Endpoint, RunId, StoreUri, print_lines
from flows.screen.words import size
from shunt.report.reading import read_report

STDOUT = "-"


def report(
    run_id: RunId,
    store: StoreUri = "runs",
    endpoint_url: Endpoint = None,
    html: Annotated[
        str | None,
        typer.Option("--html", metavar="FILE", help="Page for people; unset: `RUN.html`."),
    ] = None,
    json: Annotated[
        str | None,
        typer.Option("--json", metavar="FILE", help="The same as JSON; `-` is stdout."),
    ] = None,
) -> None:
    """Tell the story of a run: who worked when, interruptions, speed, cost, bad rows.

    The page is one file that needs no network. A run that goes on can be told, too.
    """
    opened, manifest = find_run(run_id, store, endpoint_url)
    told = read_report(opened, manifest.run_id, now=datetime.now(UTC))
    if json is not None:
        _write(json, told.model_dump_json(indent=2))
    if html is not None or json is None:
        # matplotlib takes most of a second to import, and only the page draws with it.
        from flows.report.page import render_page

        _write(html or f"{manifest.run_id}.html", render_page(told))


def _write(target: str, text: str) -> None:
    if target == STDOUT:
        print_lines([text])
        return
    path = Path(target)
    with writing(path):
        path.write_text(text, encoding="utf-8")
    typer.echo(f"{path} ({size(len(text.encode()))})", err=True)
