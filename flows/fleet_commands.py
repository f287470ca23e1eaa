"""The commands about nodes that cost money: offers, nodes, reap, drill, aws."""

import os
import random
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from flows.offers_command import Region, offers
from shunt.aws.api import AwsApi, client_of
from shunt.aws.inventory import list_nodes
from shunt.aws.reaper import condemned, reap
from shunt.drill.simulation import DrillSettings, Handling, simulate
from shunt.drill.trace import read_trace
from shunt.errors import RunMissing
from shunt.run_status import RunState, StatusReader
from shunt.store.config import StoreConfig, open_configured_store

Yes = Annotated[bool, typer.Option("--yes", help="Do it; without, only say it.")]

ALIVE_STATES = (RunState.OPEN,)


def nodes(region: Region = "us-east-1") -> None:
    """Show every node of ours in the region, by tag."""
    now = datetime.now(UTC)
    table = Table("node", "run", "slot", "type", "zone", "market", "state", "age", "deadline")
    for node in list_nodes(_api("ec2", region)):
        table.add_row(
            node.instance_id,
            node.run_id,
            node.slot,
            node.instance_type,
            node.zone,
            "spot" if node.spot else "on-demand",
            node.state,
            f"{(now - node.launched_at).total_seconds() / 3600:.1f} h",
            f"{node.expires_at:%Y-%m-%d %H:%M}" if node.expires_at else "none",
        )
    Console().print(table)


def reap_nodes(
    store: Annotated[str, typer.Option(help="Where the runs keep their state.")],
    region: Region = "us-east-1",
    yes: Yes = False,
) -> None:
    """End every node of ours that no living run owns."""
    ec2, now = _api("ec2", region), datetime.now(UTC)
    lives = _run_lives(store)
    if yes:
        doomed = reap(ec2, run_lives=lives, now=now)
    else:
        doomed = condemned(list_nodes(ec2), run_lives=lives, now=now)
    console = Console()
    for entry in doomed:
        node = entry.node
        console.print(f"{'ended' if yes else 'would end'} {node.instance_id}: {entry.reason}")
    if not doomed:
        console.print("nothing to end")


def drill(
    trace: Annotated[Path, typer.Option(help="CSV with t_s and active_instances.")],
    nodes_wanted: Annotated[int, typer.Option("--nodes", min=1)],
    total_tokens: Annotated[float, typer.Option("--tokens", min=1)],
    tokens_per_s: Annotated[float, typer.Option(min=0.001, help="Of one node.")],
    spot_price: Annotated[float, typer.Option(min=0, help="USD per node hour.")],
    on_demand_price: Annotated[float, typer.Option(min=0, help="USD per node hour.")],
    pool: Annotated[str, typer.Option(help="Start of the name of one recording.")] = "",
    seed: Annotated[int, typer.Option()] = 0,
) -> None:
    """Play work against a recorded spot trace, in virtual time."""
    settings = DrillSettings(
        total_tokens=total_tokens,
        nodes=nodes_wanted,
        tokens_per_s=tokens_per_s,
        spot_usd_per_hour=spot_price,
        on_demand_usd_per_hour=on_demand_price,
    )
    recorded = read_trace(trace, pool=pool)
    table = Table("handling", "finish", "cost", "tokens again", "interruptions")
    for handling in (Handling.SHUNT, Handling.NONE, Handling.ON_DEMAND):
        result = simulate(settings, recorded, handling, rng=random.Random(seed))
        table.add_row(
            {"shunt": "spot, shunt", "none": "spot, no handling"}.get(handling, handling.value),
            "never" if result.finish_s is None else f"{result.finish_s / 3600:.2f} h",
            f"{result.cost_usd:.2f} USD",
            f"{result.tokens_again:,.0f}",
            str(result.interruptions),
        )
    Console().print(table)


def _run_lives(store_uri: str) -> Callable[[str], bool]:
    store = open_configured_store(StoreConfig(uri=store_uri), environment=os.environ)

    def lives(run_id: str) -> bool:
        try:
            return _state(run_id) in ALIVE_STATES
        except RunMissing:
            return False

    def _state(run_id: str) -> RunState:
        return StatusReader(store, run_id).read().state

    return lives


def _api(service: str, region: str) -> AwsApi:
    return AwsApi(client_of(service, region))


COMMANDS: dict[str, Callable[..., None]] = {
    "offers": offers,
    "nodes": nodes,
    "reap": reap_nodes,
    "drill": drill,
}
