"""The shards on this worker's desk: taken, flushed, renewed, completed, lost, given back."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

from shunt.checkpoint.done import mark_done
from shunt.checkpoint.generation import Generation
from shunt.checkpoint.lease import Lease
from shunt.checkpoint.request import Request
from shunt.dataset.row_error import RowError
from shunt.errors import CorruptSegment, Fenced
from shunt.run.event import Event, EventKind, record
from shunt.store.patience import AWAY
from shunt.store.protocol import Store
from workers.settings import WorkerSettings
from workers.shards.cadence import Cadence
from workers.shards.held_shard import CountNew, HeldShard, Peek
from workers.shards.opening import OpenedShard
from workers.shards.supply import ShardSupply
from workers.shards.tally import Tally

log = logging.getLogger(__name__)

_FAIR_SHARE = 4
"""Of what is left, a worker among several takes ahead a fourth of its even share at most."""


@dataclass(slots=True)
class ShardDesk:
    """All held shards. Lives on the event loop; store calls run in threads.

    A shard that turns out to be fenced is dropped, and `on_lost` is told which requests with it.
    """

    settings: WorkerSettings
    store: Store
    supply: ShardSupply
    open_shard: Callable[[Lease, Cadence], OpenedShard]
    now: Callable[[], datetime]
    monotonic: Callable[[], float]
    tally: Tally
    on_lost: Callable[[set[str]], None]
    shards: dict[str, HeldShard] = field(default_factory=dict[str, HeldShard])
    shard_ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the last request of a shard has ended: its last segment is due at once."""
    stored_s: float = 0.0
    """When the store last took something from us."""

    _given_back: set[str] = field(default_factory=set[str])
    """Shards that this worker released unstarted: to take one again is not to resume it."""

    _left: dict[str, int] = field(default_factory=dict[str, int])
    """Shards that were given back -> rows of them that were terminal."""

    def __post_init__(self) -> None:
        self.stored_s = self.monotonic()

    @property
    def exhausted(self) -> bool:
        """Nothing is held and every shard of the run is known to be done."""
        return not self.shards and self.supply.exhausted

    @property
    def holds_all_that_is_left(self) -> bool:
        """Every shard that is not known to be done is held here: there is none to take."""
        return self.supply.nothing_beside(self.shards)

    def may_take_ahead(self, num_shards: int) -> bool:
        """Whether to hold one more shard, of `num_shards` at most, before the work here runs out.

        Only while there are shards for all workers: what one takes ahead is not another's to do
        when it runs dry, and fast workers must find some to the last.
        """
        workers, wanted = self.settings.num_workers, len(self.shards) + 1
        if workers is None or wanted > num_shards:
            return False
        share = _FAIR_SHARE if workers > 1 else 1
        return self.supply.num_left >= share * workers * wanted

    async def look(self) -> None:
        """Learn what others have finished meanwhile. A store that is not to be reached says so
        another time."""
        with suppress(*AWAY):
            await asyncio.to_thread(self.supply.forget_done)

    async def take(self) -> OpenedShard | None:
        """Win and open the next shard, or None when none is free now.

        One that cannot be read is left alone, and told of: the others get done.
        """
        lease = await asyncio.to_thread(self.supply.take, list(self.shards))
        if lease is None:
            return None
        try:
            return await self._open(lease)
        except CorruptSegment as error:
            log.error("shard left alone shard=%s: %s", lease.shard_id, error)
            self.supply.quarantine(lease.shard_id)
            await self._record(EventKind.SHARD_CORRUPT, lease.shard_id, str(error))
            with suppress(*AWAY):
                await asyncio.to_thread(lease.release)
            return None

    async def _open(self, lease: Lease) -> OpenedShard:
        now = self.monotonic()
        cadence = Cadence(
            self.settings.checkpoint_interval_s, self.settings.checkpoint_tokens, now, now
        )
        opened = await asyncio.to_thread(self.open_shard, lease, cadence)
        self.shards[lease.shard_id] = opened.shard
        log.info("shard taken shard=%s epoch=%d", lease.shard_id, lease.epoch)
        ours = lease.shard_id in self._given_back and not opened.resumed_generations
        if opened.previous_epochs and opened.shard.open and not ours:
            await self._tell_resumed(opened)
        return opened

    async def flush_due(self, peek: Peek, count_new: CountNew) -> None:
        """Append what is due, and complete the shards whose last request has ended."""
        due = [shard for shard in self.shards.values() if self._due(shard, count_new)]
        for shard in due:
            if shard.shard_id in self.shards:  # else lost to another owner meanwhile
                await self._guarded(shard, self._flush(shard, peek))

    def rows_terminal(self, *, ended: bool) -> dict[str, int]:
        """Of the shards that are held; of a worker that has `ended`, of those it gave back."""
        held = {shard.shard_id: shard.num_terminal for shard in self.shards.values()}
        return self._left | held if ended else held

    @property
    def unsaved_rows(self) -> int:
        return sum(shard.unsaved_rows for shard in self.shards.values())

    def unsaved_tokens(self, count_new: CountNew) -> int:
        return sum(shard.unsaved_tokens(count_new) for shard in self.shards.values())

    def _due(self, shard: HeldShard, count_new: CountNew) -> bool:
        if shard.num_unfinished == 0:
            return True
        now = self.monotonic()
        if not shard.cadence.ripe(now):
            return False
        return shard.cadence.due(now, shard.unsaved_tokens(count_new))

    async def flush_all(self, peek: Peek) -> None:
        """Append everything, now. A store that is not to be reached raises `StoreUnavailable`."""
        await asyncio.gather(
            *(self._fence_guarded(s, self._flush(s, peek)) for s in list(self.shards.values()))
        )

    async def renew(self, in_flight: Iterable[str]) -> None:
        """Renew all leases at once, saying what is in the engine: one that waits for the store must
        not make the others lapse."""
        running = set(in_flight)

        async def renew(shard: HeldShard) -> None:
            indexes = {int(r.split(".")[0]) for r in running & shard.open.keys()}
            await self._guarded(shard, asyncio.to_thread(shard.log.lease.renew, sorted(indexes)))

        await asyncio.gather(*map(renew, list(self.shards.values())))

    async def give_back_unstarted(self) -> None:
        """Release every shard, of which no request has run, and drop its waiting requests."""
        for shard in list(self.shards.values()):
            self.on_lost(set(shard.open))
        self._given_back.update(self.shards)
        await self.release(list(self.shards))

    async def release(self, shard_ids: Iterable[str]) -> None:
        """Give shards back, so that their next owner need not wait. A lease that the store does not
        take back lapses."""
        for shard_id in shard_ids:
            with suppress(*AWAY):
                await asyncio.to_thread(self.shards[shard_id].log.lease.release)
            if (shard := self.shards.pop(shard_id, None)) is not None:
                self._left[shard_id] = shard.num_terminal

    def update(self, request: Request) -> None:
        """Remember what a request had when its engine died."""
        for shard in self.shards.values():
            if request.request_id in shard.open:
                shard.replace(request)

    def finish(self, request_id: str, generation: Generation) -> None:
        for shard in self.shards.values():
            if request_id in shard.open:
                shard.finish(request_id, generation)
                self.tally.rows_finished += 1
                self.tally.prompt_tokens += generation.num_prompt_tokens
                self.tally.cached_tokens += generation.num_cached_tokens
                self._see_end(shard)

    def fail(self, request_id: str, error: RowError) -> None:
        for shard in self.shards.values():
            if request_id in shard.open:
                shard.fail(request_id, error)
                self.tally.rows_failed += 1
                self._see_end(shard)

    def _see_end(self, shard: HeldShard) -> None:
        if shard.num_unfinished == 0:
            self.shard_ended.set()

    async def _flush(self, shard: HeldShard, peek: Peek) -> None:
        before = shard.log.bytes_written
        saved = await shard.flush(peek, self.monotonic())
        self.tally.output_tokens += saved  # after the wait: other shards flush meanwhile
        written = shard.log.bytes_written - before
        if written:
            self.tally.segments += 1
            self.tally.segment_bytes += written
        self.stored_s = self.monotonic()
        if shard.complete:
            await self._complete(shard)

    async def _complete(self, shard: HeldShard) -> None:
        """Say that the shard is done, unless the rows of it that count are another owner's."""
        await asyncio.to_thread(self._say_done, shard)
        self.shards.pop(shard.shard_id, None)
        self.supply.finished(shard.shard_id)
        log.info("shard done shard=%s rows=%d", shard.shard_id, shard.counts.num_rows)

    def _say_done(self, shard: HeldShard) -> None:
        shard.log.lease.check()
        mark_done(self.store, self.settings.run_id, shard.done())
        shard.log.lease.release()

    async def _guarded(self, shard: HeldShard, work: Awaitable[None]) -> None:
        """Do it; what the store could not take now is tried again at the next tick."""
        try:
            await self._fence_guarded(shard, work)
        except AWAY as error:
            self.supply.observer.store_away()
            silent_s = self.monotonic() - self.stored_s
            if silent_s > self.settings.store_patience_s:
                raise
            log.warning(
                "store not reached shard=%s for_s=%.0f: %s", shard.shard_id, silent_s, error
            )

    async def _fence_guarded(self, shard: HeldShard, work: Awaitable[None]) -> None:
        try:
            await work
        except Fenced as fence:
            log.warning("%s", fence)
            self.shards.pop(shard.shard_id, None)
            self.on_lost(set(shard.open))
            await self._record(EventKind.FENCED, shard.shard_id, str(fence))

    async def _tell_resumed(self, opened: OpenedShard) -> None:
        self.tally.resumed_generations += opened.resumed_generations
        self.tally.resumed_tokens += opened.resumed_tokens
        detail = (
            f"took over {len(opened.shard.open)} unfinished prompts, "
            f"{opened.resumed_generations} of them with {opened.resumed_tokens} saved tokens"
        )
        shard_id = opened.shard.shard_id
        await self._record(EventKind.SHARD_RESUMED, shard_id, detail, opened.resumed_tokens)

    async def _record(
        self, kind: EventKind, shard_id: str, detail: str, num_tokens: int = 0
    ) -> None:
        event = Event(
            at=self.now(),
            kind=kind,
            node_id=self.settings.node_id,
            shard_id=shard_id,
            detail=detail,
            num_tokens=num_tokens,
        )
        try:
            await asyncio.to_thread(record, self.store, self.settings.run_id, event)
        except AWAY as error:  # never a reason to lose hold of what the event is about
            log.warning("event not stored: %s", error)
