"""Leases: who may write a shard, and how everybody else finds out.

Owning a shard is having won the creation of its next numbered lease. The owner then overwrites the
lease's heartbeat object, which it alone writes; observers never compare clocks with it: a lease has
lapsed when its heartbeat has not changed for one term on the observer's own monotonic clock, or
when its owner is known to be gone (`shunt.checkpoint.gone`). Releasing is one last heartbeat that
says so. Nothing is ever deleted.
"""

import threading
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field
from typing import Literal

from pydantic import BaseModel, ConfigDict

from shunt import keys
from shunt.checkpoint.gone import GoneNodes
from shunt.errors import Fenced
from shunt.store.errors import ObjectMissing, StoreError
from shunt.store.protocol import Store


class LeaseRecord(BaseModel):
    """The lease object. `owner` holds a nonce, so that no two owners ever write equal bytes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1] = 1
    owner: str
    epoch: int


class Heartbeat(BaseModel):
    """What the owner says at each renewal."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1] = 1
    owner: str
    beat: int
    """Counts up, so that every renewal changes the object."""
    released: bool = False
    in_flight: tuple[int, ...] = ()
    """Prompt indexes in the engine: the suspects if this owner dies with its machine."""


@dataclass(slots=True)
class Lease:
    """The owner's side of a won lease. A renewal and the release may come from two threads at once:
    the release is the last word, as one that a renewal overtook would cost others a whole term."""

    store: Store
    run_id: str
    shard_id: str
    epoch: int
    owner: str
    quick: Store | None = None
    """For renewals: the same store, which gives up early. None: `store` itself."""
    _beat: int = 0
    _released: bool = False
    _writing: threading.Lock = field(default_factory=threading.Lock)

    def renew(self, in_flight: Iterable[int] = ()) -> None:
        """Say that the owner lives. Raises `Fenced` when a newer epoch exists.

        The check comes first: an owner that lost its shard must not look alive.
        """
        store = self.quick or self.store
        with self._writing:
            if self._released:
                return
            self._check(store)
            beat = Heartbeat(owner=self.owner, beat=self._next(), in_flight=tuple(in_flight))
            self._write(store, beat)

    def release(self) -> None:
        """Give the shard back, so that nobody waits for a term to pass."""
        with self._writing:
            self._released = True
            beat = Heartbeat(owner=self.owner, beat=self._next(), released=True)
            self._write(self.store, beat)

    def check(self) -> None:
        """Raise `Fenced` when a newer epoch exists."""
        self._check(self.store)

    def _check(self, store: Store) -> None:
        """Epochs leave no gap, so the next one tells."""
        try:
            store.size_bytes(keys.lease(self.run_id, self.shard_id, self.epoch + 1))
        except ObjectMissing:
            return
        newer = newest_epoch(store, self.run_id, self.shard_id)
        raise Fenced(self.shard_id, epoch=self.epoch, newer_epoch=newer)

    def _next(self) -> int:
        self._beat += 1
        return self._beat

    def _write(self, store: Store, heartbeat: Heartbeat) -> None:
        key = keys.lease_heartbeat(self.run_id, self.shard_id, self.epoch)
        store.put(key, heartbeat.model_dump_json().encode())  # this owner alone writes it


@dataclass(slots=True)
class LeaseObserver:
    """Decides when other owners' leases have lapsed, on this process's own clock."""

    store: Store
    run_id: str
    term_s: float
    monotonic: Callable[[], float]
    quick: Store | None = None
    """What the leases that are won here are renewed through, see `Lease`."""
    _seen: dict[tuple[str, int], tuple[bytes, float]] = field(
        default_factory=dict[tuple[str, int], tuple[bytes, float]]
    )
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _gone: GoneNodes = field(init=False)

    def __post_init__(self) -> None:
        self._gone = GoneNodes(self.store, self.run_id, self.monotonic)

    def acquire(self, shard_id: str, owner: str) -> Lease | None:
        """Win the shard's next lease, or None while another owner holds it (or won the race).

        A first look at a held lease only starts its term; call again later. Raises `StoreError`.
        """
        try:
            return self._acquire(shard_id, owner)
        except StoreError:
            self.store_away()
            raise

    def store_away(self) -> None:
        """The store did not answer, here or elsewhere in this process: no owner could renew either,
        so every term begins anew. Owners that lived through it would lose what they could not save.
        """
        with self._lock:
            self._seen.clear()

    def _acquire(self, shard_id: str, owner: str) -> Lease | None:
        newest = newest_epoch(self.store, self.run_id, shard_id)
        if newest > 0 and not self._free(shard_id, newest):
            return None
        record = LeaseRecord(owner=owner, epoch=newest + 1)
        key = keys.lease(self.run_id, shard_id, newest + 1)
        if not self.store.put_if_absent(key, record.model_dump_json().encode()):
            return None
        return Lease(self.store, self.run_id, shard_id, newest + 1, owner, self.quick)

    def _free(self, shard_id: str, epoch: int) -> bool:
        seen = self._heartbeat(shard_id, epoch)
        heartbeat = Heartbeat.model_validate_json(seen) if seen else None
        if heartbeat is not None and heartbeat.released:
            return True
        now = self.monotonic()
        with self._lock:
            before, since = self._seen.get((shard_id, epoch), (None, now))
            if before != seen:
                since = now
            self._seen[shard_id, epoch] = (seen, since)
        if now - since >= self.term_s:
            return True
        owner = self._owner(shard_id, epoch) if heartbeat is None else heartbeat.owner
        return self._gone.has(owner)

    def _owner(self, shard_id: str, epoch: int) -> str:
        """By the lease itself: its owner has said nothing yet."""
        lease = self.store.get(keys.lease(self.run_id, shard_id, epoch))
        return LeaseRecord.model_validate_json(lease).owner

    def _heartbeat(self, shard_id: str, epoch: int) -> bytes:
        """Empty when the owner has not written one yet."""
        try:
            return self.store.get(keys.lease_heartbeat(self.run_id, shard_id, epoch))
        except ObjectMissing:
            return b""


def newest_epoch(store: Store, run_id: str, shard_id: str) -> int:
    """The newest epoch that anybody won; 0 when nobody has yet."""
    listed = store.list(keys.lease_prefix(run_id, shard_id))
    return max((epoch for key in listed if (epoch := keys.lease_epoch(key)) is not None), default=0)


def past_suspects(
    store: Store, run_id: str, shard_id: str, *, fruitful: Container[int]
) -> dict[int, int]:
    """Prompt index -> how many owners died with it in flight before they could save anything.

    Epochs in `fruitful` appended segments: what ended them did not stop the shard.
    """
    counts: dict[int, int] = {}
    for key in store.list(keys.lease_prefix(run_id, shard_id)):
        if not key.endswith(".heartbeat") or keys.heartbeat_epoch(key) in fruitful:
            continue
        heartbeat = Heartbeat.model_validate_json(store.get(key))
        for index in () if heartbeat.released else heartbeat.in_flight:
            counts[index] = counts.get(index, 0) + 1
    return counts
