"""`shunt retry`: rows of a finished run once more; the result is that of both."""

from typing import Annotated

import typer

from flows.commands.finding import find_run
from flows.commands.run import (
    RUN_STOPS,
    AsJson,
    Endpoint,
    Overrides,
    RunId,
    StoreUri,
    end,
    retold,
    stop_on_signals,
    view_of,
)
from flows.drive.drive import retry as retry_run
from flows.surroundings import surroundings
from shunt.run.retry import Where


def retry(
    run_id: RunId,
    where: Annotated[
        list[str] | None,
        typer.Option(
            help="Of which kind the rows are: code=context_length,engine_refused (of an error), "
            "id=..., finish_reason=length, structure=broken. Without it: all error rows."
        ),
    ] = None,
    store: StoreUri = "runs",
    endpoint_url: Endpoint = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Generate some rows of a finished run again, perhaps with other settings.

    It is a run of its own, whose results have all rows: each of these in its place, the others as
    they were.
    """
    opened, origin = find_run(run_id, store, endpoint_url)
    job = retold(origin, store, endpoint_url, overrides)
    chosen = Where.of(where or [])
    with stop_on_signals(RUN_STOPS) as stop, view_of(as_json=as_json) as watcher:
        around = surroundings(job, stop)
        ending = retry_run(origin, job, chosen, opened, around, watcher)
    end(ending, as_json=as_json)
