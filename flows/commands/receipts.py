"""`shunt receipts`: who made each row, and what it cost."""

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.finding import find_run
from flows.commands.output_file import writing
from flows.commands.run import Endpoint, RunId, StoreUri
from flows.screen.words import counted, size
from shunt.aws.nodes.intent import pools_of
from shunt.report.receipts import write_receipts
from shunt.run.spend import read_spend


def receipts(
    run_id: RunId,
    store: StoreUri = "runs",
    endpoint_url: Endpoint = None,
    output: Annotated[
        str | None,
        typer.Option("--output", metavar="FILE", help="Unset: `RUN.receipts.parquet`."),
    ] = None,
) -> None:
    """Write a Parquet file beside the results: of each row its nodes and engines, what was
    generated twice, and its share of the bill.
    """
    opened, manifest = find_run(run_id, store, endpoint_url)
    path = Path(output or f"{manifest.run_id}.receipts.parquet")
    spend = read_spend(opened, manifest.run_id)
    bought = pools_of(opened, manifest.run_id)
    with writing(path):
        num_rows = write_receipts(opened, manifest, path, bought=bought, spend=spend)
    cost = "" if spend is None else f", {spend.usd} USD in all"
    typer.echo(f"{path} ({counted(num_rows, 'row')}{cost}, {size(path.stat().st_size)})", err=True)
