"""Owners that are gone for good, by the word of whoever saw them end.

A lease says that its owner lives until it has been silent for a term. Who knows better (the parent
of a process has waited for it, EC2 says that an instance is terminated) says so in the store, and
the owner's shards are free at once. A wrong word costs no token that was saved: the next owner wins
the next epoch and seals this one, and whoever still lives is fenced at its next write.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from shunt import keys
from shunt.store.patience import AWAY
from shunt.store.protocol import Store

ASKED_AGAIN_S = 2.0
"""Between two listings of one observer: it asks only while it waits for a lease to lapse."""

_NONCE_DIGITS = 32


def owner_name(node_id: str, nonce: str) -> str:
    """The owner of leases: a worker's node, and 32 digits of its process alone."""
    assert len(nonce) == _NONCE_DIGITS
    return f"{node_id}-{nonce}"


def node_of(owner: str) -> str:
    """The worker's node of an owner."""
    return owner[: -_NONCE_DIGITS - 1]


def teller_of_gone(store: Store, run_id: str) -> Callable[[str], None]:
    """Says of a node (a machine, or a worker process) that it has ended and never writes again.
    Where the store is away, its leases lapse."""

    def say(node_id: str) -> None:
        with suppress(*AWAY):
            store.put_if_absent(keys.gone(run_id, node_id), b"")

    return say


@dataclass(slots=True)
class GoneNodes:
    """Who is known to be gone; listed again when somebody asks, and not too often."""

    store: Store
    run_id: str
    monotonic: Callable[[], float]
    _known: frozenset[str] = frozenset()
    _listed_s: float | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def has(self, owner: str) -> bool:
        """Whether the owner of a lease is gone."""
        node_id = node_of(owner)
        known = self._list()
        return node_id in known or keys.machine_of(node_id) in known

    def _list(self) -> frozenset[str]:
        with self._lock:
            now_s = self.monotonic()
            if self._listed_s is None or now_s - self._listed_s >= ASKED_AGAIN_S:
                prefix = keys.gone_prefix(self.run_id)
                self._known = frozenset(k.removeprefix(prefix) for k in self.store.list(prefix))
                self._listed_s = now_s
            return self._known
