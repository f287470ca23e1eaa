"""`shunt watch`: follow a run from any machine that can read its store."""

import json
from pathlib import Path
from typing import Annotated

import typer

from flows.commands.finding import find_run
from flows.commands.run import (
    Endpoint,
    RunId,
    StoreUri,
    print_lines,
    stop_on_signals,
    view_of,
)
from flows.drive.drive import go_on_command, join_command
from flows.screen.metrics_text import write_metrics
from flows.screen.picture import Look
from flows.screen.view import PlainView
from shunt.aws.nodes.bought import BoughtNodes
from shunt.errors import JobError
from shunt.run.effort import answer_tokens
from shunt.run.manifest import Manifest
from shunt.run.node_status import HEARTBEAT_S
from shunt.run.outlook import outlook_of
from shunt.run.status import RunState, RunStatus, StatusReader, status_tree
from shunt.store.patience import AWAY
from shunt.store.protocol import Store

_EVERY_S = HEARTBEAT_S
"""Nothing is news sooner."""
_READS_PER_S = 25.0
"""Of nodes, at most: a fleet of hundreds is looked at less often, as each node is a read."""
_ENDS = "no longer watching; the run goes on"


def watch(
    run_id: RunId,
    store: StoreUri = "runs",
    endpoint_url: Endpoint = None,
    every_s: Annotated[
        float, typer.Option("--every", min=0.1, help="Seconds between two looks.")
    ] = _EVERY_S,
    metrics: Annotated[
        Path | None,
        typer.Option(help="Also keep this file up to date, in Prometheus's text format."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print an object a line, one for each look.")
    ] = False,
) -> None:
    """Follow a run that somebody else drives, until it is collected, cancelled or Ctrl-C.

    On a terminal a live picture: rows, tokens per second of each worker, money, the time left as a
    range. Elsewhere plain lines.
    """
    opened, manifest = find_run(run_id, store, endpoint_url)
    looks = Looks(opened, manifest)
    with stop_on_signals(_ENDS) as stop, view_of(as_json=as_json) as view:
        if not as_json:
            view.prepared(manifest)
        while not stop.is_set():
            try:
                look = looks.look()
            except AWAY as error:
                view.say(f"the store does not answer, it is asked again: {error}")
                stop.wait(every_s)
                continue
            if metrics is not None:
                _write_metrics(look, metrics)
            if as_json:
                print_lines([json.dumps(_tree(look), ensure_ascii=False)])
            else:
                _show(view, look, manifest)
            if look.status.state in (RunState.COLLECTED, RunState.CANCELLED):
                break
            stop.wait(max(every_s, len(look.status.living) / _READS_PER_S))


class Looks:
    """Looks at one run again and again: what never changes is read once."""

    def __init__(self, store: Store, manifest: Manifest) -> None:
        self._reader = StatusReader(store, manifest.run_id)
        self._max_tokens = answer_tokens(manifest.settled_job)
        costs = manifest.job.fleet.kind == "ec2"
        self._bought = BoughtNodes(store, manifest.run_id) if costs else None

    def look(self) -> Look:
        status = self._reader.read()
        bought = {} if self._bought is None else self._bought.pools()
        pools = {node: f"{p.instance_type} {p.zone} {p.market}" for node, p in bought.items()}
        return Look(status, outlook_of(status, self._max_tokens), pools)


def _write_metrics(look: Look, path: Path) -> None:
    try:
        write_metrics(look, path)
    except OSError as error:
        raise JobError(f"--metrics {path}: cannot be written: {error.strerror}") from error


def _show(view: PlainView, look: Look, manifest: Manifest) -> None:
    view.pools = look.pools
    view.seen(look.status, look.outlook)
    if _is_alone(look.status) and not join_command(manifest):
        view.say(f"nobody works on this run now. Go on with: {go_on_command(manifest)}")


def _is_alone(status: RunStatus) -> bool:
    """Whether workers were there, and all of them have gone or fallen silent, with rows left."""
    return bool(status.nodes and not status.living and status.state is RunState.OPEN)


def _tree(look: Look) -> dict[str, object]:
    """The status, and what is figured from it."""
    outlook = look.outlook
    return {
        **status_tree(look.status),
        "tokens_per_s": round(outlook.tokens_per_s, 2),
        "tokens_per_s_by_worker": {name: round(r, 2) for name, r in outlook.by_worker.items()},
        "eta_s": outlook.eta_s and [round(seconds, 1) for seconds in outlook.eta_s],
        "pools": dict(look.pools),
    }
