"""Nodes of ours that no living run owns, found by tag and ended."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from shunt.aws.api import AwsApi
from shunt.aws.nodes.inventory import OurNode, list_nodes, terminate_instances

YOUNG = timedelta(seconds=120)
"""A node may be listed before its run's records are; nobody reaps what was born just now."""


@dataclass(frozen=True, slots=True)
class Condemned:
    """A node to end, and why."""

    node: OurNode
    reason: str


def condemned(
    nodes: Sequence[OurNode],
    *,
    store_uri: str,
    run_lives: Callable[[str], bool],
    now: datetime,
) -> list[Condemned]:
    """What is past its deadline tag, has none, or belongs to no living run of this store.

    Whether a run of another store lives, `run_lives` cannot know: its nodes have their deadline.
    """
    found: list[Condemned] = []
    known: dict[str, bool] = {}
    for node in nodes:
        if node.run_id not in known:
            known[node.run_id] = run_lives(node.run_id)
        if node.expires_at is not None and now >= node.expires_at:
            found.append(Condemned(node, f"its deadline {node.expires_at:%Y-%m-%d %H:%M} is past"))
        elif now - node.launched_at < YOUNG or _of_another(node, store_uri):
            continue
        elif node.expires_at is None:
            found.append(Condemned(node, "it has no deadline tag"))
        elif not known[node.run_id]:
            found.append(Condemned(node, f"run {node.run_id} is not alive"))
    return found


def _of_another(node: OurNode, store_uri: str) -> bool:
    return bool(node.store_uri) and node.store_uri != store_uri


def reap(
    ec2: AwsApi, *, store_uri: str, run_lives: Callable[[str], bool], now: datetime
) -> list[Condemned]:
    """End them. The listing comes first and the runs' records second: a run that starts between
    is seen alive."""
    doomed = condemned(list_nodes(ec2), store_uri=store_uri, run_lives=run_lives, now=now)
    terminate_instances(ec2, [entry.node.instance_id for entry in doomed])
    return doomed
