"""`shunt audit`: were the resumed rows the ones that would have been?"""

import json
import os
import subprocess
import threading
from typing import Annotated, Any

import typer
from rich.table import Table

from flows.commands.finding import find_run
from flows.commands.run import AsJson, Endpoint, RunId, StoreUri
from flows.exit_code import ExitCode
from flows.screen.words import console as console_of
from flows.surroundings import surroundings
from shunt.errors import RunError
from shunt.store.config import StoreConfig
from shunt.store.credential_server import lent_credentials


def audit(
    run_id: RunId,
    store: StoreUri = "runs",
    endpoint_url: Endpoint = None,
    fraction: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the resumed rows.")
    ] = 0.01,
    as_json: AsJson = False,
) -> None:
    """Run a share of the resumed rows again, undisturbed, and say where they differ.

    Exit codes: 0 no token differs, 1 some do (on a GPU, numerics may flip a token).
    """
    _, manifest = find_run(run_id, store, endpoint_url)
    config = StoreConfig(uri=store, endpoint_url=endpoint_url)
    around = surroundings(manifest.job, threading.Event())
    arguments = ["--store", config.model_dump_json(exclude_none=True), "--run", manifest.run_id]
    argv = [around.worker_python, "-m", "workers.audit", *arguments, "--fraction", str(fraction)]
    around.log_directory.mkdir(parents=True, exist_ok=True)
    log_path = around.log_directory / f"audit-{manifest.run_id}.log"
    with log_path.open("wb") as log, lent_credentials(config, os.environ) as lent:
        environment = {**os.environ, **around.environment, **lent}
        done = subprocess.run(argv, env=environment, stdout=subprocess.PIPE, stderr=log)
    if done.returncode != 0:
        raise RunError(manifest.run_id, f"the audit failed; its log is {log_path}")
    report = json.loads(done.stdout.splitlines()[-1])
    differing = [row for row in report["rows"] if row["first_difference"] is not None]
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        _show(report, differing)
    raise typer.Exit(ExitCode.FAILED if differing else ExitCode.OK)


def _show(report: dict[str, Any], differing: list[dict[str, Any]]) -> None:
    console = console_of()
    rows = report["rows"]
    console.print(
        f"{len(rows)} of {report['num_resumed']} resumed generations run again: "
        f"{len(rows) - len(differing)} have the same tokens, {len(differing)} differ",
        highlight=False,
    )
    if differing:
        table = Table("request", "first difference", "logprob gap there", box=None)
        for row in differing:
            gap = "-" if row["choice_gap"] is None else f"{row['choice_gap']:.4f}"
            table.add_row(row["request"], str(row["first_difference"]), gap)
        console.print(table)
