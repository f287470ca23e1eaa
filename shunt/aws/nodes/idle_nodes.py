"""Nodes that have nothing to do because others hold the last shards."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

from shunt import keys
from shunt.run.event import EventKind
from shunt.run.node_status import NodeState
from shunt.run.status import RunStatus

IDLE_S = 120.0
"""A node may idle for so long: the lease of a lost holder lapses sooner, and its shard is free."""


def num_open_shards(status: RunStatus) -> int | None:
    """Shards that are not done and can be; None where the status does not list them."""
    if not status.shards:
        return None
    corrupt = {e.shard_id for e in status.events if e.kind is EventKind.SHARD_CORRUPT}
    return sum(not shard.done and shard.shard_id not in corrupt for shard in status.shards)


@dataclass(slots=True)
class IdleNodes:
    """Remembers since when each node has idled, on the observer's clock."""

    monotonic: Callable[[], float]
    idle_s: float = IDLE_S
    _since: dict[str, float] = field(default_factory=dict[str, float])

    def to_release(self, status: RunStatus, holding: Collection[str]) -> Iterator[str]:
        """Nodes that have idled for so long while no shard is free."""
        now_s = self.monotonic()
        idle = _idle(status) & set(holding)
        self._since = {node_id: self._since.get(node_id, now_s) for node_id in idle}
        if any(not shard.done and not shard.holder for shard in status.shards):
            self._since.clear()
        for node_id, since_s in self._since.items():
            if now_s - since_s >= self.idle_s:
                yield node_id


def _idle(status: RunStatus) -> set[str]:
    """Machines all of whose workers idle; a node may have several. A worker that was killed says
    nothing any more, and its successor has another name."""
    states: dict[str, set[NodeState]] = {}
    for node in status.living:
        states.setdefault(keys.machine_of(node.node_id), set()).add(node.state)
    return {machine for machine, found in states.items() if found == {NodeState.IDLE}}
