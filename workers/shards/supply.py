"""Where a worker's next shard comes from."""

import random
from collections.abc import Container, Sequence
from dataclasses import dataclass, field

from shunt.checkpoint.done import done_shards
from shunt.checkpoint.lease import Lease, LeaseObserver


@dataclass(slots=True)
class ShardSupply:
    """Walks the run's shards in an order of this worker's own and takes what is free. Blocking.

    Each worker starts at another place, so that a fleet that starts together does not queue up for
    one lease.
    """

    observer: LeaseObserver
    shard_ids: Sequence[str]
    owner: str
    rng: random.Random
    trust_done: bool
    """Skip shards with a done marker. Off after a collect that found such a shard open."""
    stopped: bool = False
    """Set where the worker is to leave: a search over thousands of shards ends at the next one."""
    quarantined: set[str] = field(default_factory=set[str])
    """Shards whose stored objects contradict themselves: nobody can work on them."""
    _left: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        start = self.rng.randrange(len(self.shard_ids)) if self.shard_ids else 0
        self._left = [*self.shard_ids[start:], *self.shard_ids[:start]]

    @property
    def exhausted(self) -> bool:
        """Every shard is known to be done, or cannot be."""
        return not self._left

    def nothing_beside(self, held: Container[str]) -> bool:
        """Whether all shards that are not known to be done are among `held`."""
        return all(shard_id in held for shard_id in self._left)

    @property
    def num_left(self) -> int:
        """Shards that are not known to be done, by whomever they are held."""
        return len(self._left)

    def take(self, held: Sequence[str]) -> Lease | None:
        """The next shard's lease, or None when every open shard is held by somebody now."""
        self.forget_done()
        for shard_id in list(self._left):
            if self.stopped:
                return None
            if shard_id in held:
                continue
            lease = self.observer.acquire(shard_id, self.owner)
            if lease is not None:
                return lease
        return None

    def finished(self, shard_id: str) -> None:
        """This worker saw the shard's log complete."""
        self._left = [left for left in self._left if left != shard_id]

    def quarantine(self, shard_id: str) -> None:
        """Leave the shard alone from now on, so that the others get done."""
        self.quarantined.add(shard_id)
        self.finished(shard_id)

    def forget_done(self) -> None:
        """Look which shards are marked done, by anybody."""
        if not self.trust_done:
            return
        done = done_shards(self.observer.store, self.observer.run_id)
        self._left = [shard_id for shard_id in self._left if shard_id not in done]
