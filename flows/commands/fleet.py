"""The commands about nodes that cost money: offers, nodes, reap, drill."""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.table import Table

from flows.commands.drill import drill
from flows.commands.offers import Region, offers
from flows.screen.words import console as console_of
from shunt.aws.api import AwsApi, client_of
from shunt.aws.nodes.inventory import list_nodes
from shunt.aws.nodes.reaper import condemned, reap
from shunt.errors import RunMissing
from shunt.run.status import RunState, StatusReader
from shunt.store.config import StoreConfig, open_configured_store
from shunt.store.protocol import Store
from shunt.store.reaching import require_reachable

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
    console_of().print(table)


def reap_nodes(
    store: Annotated[str, typer.Option(help="Where the runs keep their state.")],
    region: Region = "us-east-1",
    yes: Yes = False,
) -> None:
    """End every node of ours that no living run of the store owns, or is past its deadline."""
    ec2, now = _api("ec2", region), datetime.now(UTC)
    opened = open_configured_store(StoreConfig(uri=store), environment=os.environ)
    require_reachable(opened)
    lives, uri = _run_lives(opened), opened.uri
    if yes:
        doomed = reap(ec2, store_uri=uri, run_lives=lives, now=now)
    else:
        doomed = condemned(list_nodes(ec2), store_uri=uri, run_lives=lives, now=now)
    console = console_of()
    for entry in doomed:
        node = entry.node
        console.print(f"{'ended' if yes else 'would end'} {node.instance_id}: {entry.reason}")
    if not doomed:
        console.print("nothing to end")


def _run_lives(store: Store) -> Callable[[str], bool]:
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
