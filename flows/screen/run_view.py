"""`shunt status`: one picture of a run and what happened to it, or a list of all runs."""

from collections.abc import Sequence
from datetime import datetime

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.screen.view import event_line, spend_line
from flows.screen.words import counted, duration
from shunt.run.listing import RunLine
from shunt.run.status import RunStatus

_SHOWN_EVENTS = 12
_SHOWN_SHARDS = 20
_SHOWN_FAILURES = 5


def show_runs(console: Console, runs: Sequence[RunLine], *, now: datetime) -> None:
    """A line for each run, the youngest last."""
    if not runs:
        console.print("no run in this store")
        return
    table = Table("run", "state", box=None, header_style="dim", pad_edge=False)
    for name in ("rows", "age", "USD"):
        table.add_column(name, justify="right")
    for run in sorted(runs, key=lambda run: run.created_at):
        table.add_row(
            run.run_id,
            run.state.value,
            f"{run.rows_done:,}/{run.rows_total:,}",
            duration((now - run.created_at).total_seconds()),
            "-" if run.usd is None else f"{run.usd:.2f}",
        )
    console.print(table)


def show_status(console: Console, status: RunStatus) -> None:
    """Counts, shards that are not done, living workers, the latest events."""
    console.print(
        f"[bold]{status.run_id}[/] is {status.state.value}: {status.rows_ended:,} of "
        f"{counted(status.rows_total, 'row')}, {counted(status.rows_failed, 'error row')}, "
        f"{counted(status.tokens_made, 'token')} generated, "
        f"{counted(status.num_interruptions, 'interruption')}",
        highlight=False,
    )
    if (spend := status.spend) is not None:
        console.print(
            f"{spend_line(spend)}, {spend.num_nodes} of {spend.num_launched} nodes live, "
            f"as of {spend.at:%Y-%m-%d %H:%M:%S}",
            highlight=False,
        )
    open_shards = [shard for shard in status.shards if not shard.done]
    if open_shards:
        shards = Table("shard", "rows", "terminal", "held by", box=None, header_style="dim")
        for shard in open_shards[:_SHOWN_SHARDS]:
            counts = (str(shard.num_rows), str(shard.num_terminal))
            shards.add_row(shard.shard_id, *counts, shard.holder or "-")
        console.print(shards)
        if len(open_shards) > _SHOWN_SHARDS:
            console.print(f"  and {len(open_shards) - _SHOWN_SHARDS} more open shards")
    for node in status.living:
        tokens = counted(node.tokens_made, "token")
        busy = node.detail or f"{node.running} in flight, {tokens}"
        console.print(f"worker {node.node_id}: {node.state.value}, {busy}", highlight=False)
    for node in status.failed[-_SHOWN_FAILURES:]:
        console.print(
            f"[red]node {node.node_id} failed[/] at {node.updated_at:%H:%M:%S}: "
            f"{escape(node.failure)}",
            highlight=False,
            soft_wrap=True,
        )
    for event in status.events[-_SHOWN_EVENTS:]:
        console.print(event_line(event), highlight=False, soft_wrap=True)
