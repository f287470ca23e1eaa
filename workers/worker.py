"""The worker loop: take shards, keep the engine full, save every token, leave cleanly."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime

from shunt.checkpoint.request import Request
from shunt.dataset.row_error import RowError, RowErrorCode
from shunt.errors import ShuntError
from shunt.fleet.worker_exit import WorkerExit
from shunt.run.cancellation import RUN_CANCELLED, is_cancelled
from shunt.run.driver import DRIVER_SILENT_S, DriverWatch
from shunt.run.event import Event, EventKind, record
from shunt.run.node_course import CourseKeeper, NodeState, Sample
from shunt.run.node_status import NodeStatus, write_status
from shunt.store.patience import AWAY
from shunt.store.protocol import Store
from workers.admission import Admission
from workers.engine_room import EngineRoom
from workers.settings import WorkerSettings
from workers.shards.desk import ShardDesk
from workers.shards.tally import Tally

log = logging.getLogger(__name__)

_ORDERED = 4
"""Requests that wait beside the engine, per request in it, below which another shard is opened: the
serving order is as good as what it can choose from."""
_SHARDS_AHEAD, _SHARDS_SHARING = 2, 4
"""Shards held at once for that: each has segments of its own to write. Where prompts share prefixes
more of them bring more of the prompts of a prefix together."""
_TERMS_UNSTARTED = 4
"""Lease terms for which a worker whose engine is not up yet holds the last open shards of a run."""


async def _always() -> bool:
    return True


@dataclass(slots=True)
class Worker:
    """One worker process. Everything runs on one event loop; store calls run in threads."""

    settings: WorkerSettings
    store: Store
    room: EngineRoom
    desk: ShardDesk
    admission: Admission
    tally: Tally
    now: Callable[[], datetime]
    pid: int
    carriers_live: Callable[[], Awaitable[bool]] = _always
    """Asked after an engine's death: whether all nodes that carried the engine live on. Where one
    does not, no prompt is to blame, and the worker leaves."""
    driver: DriverWatch | None = None
    """Of a node that costs money, in a run with a limit to what it may cost."""
    leave: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by `told_to_leave`: a signal, a notice, a cancelled run, as `leave_reason` says."""
    leave_reason: str = ""
    started_at: datetime = field(init=False)
    course: CourseKeeper = field(default_factory=CourseKeeper)
    _taking: "asyncio.Task[bool] | None" = None
    """The next shard being won and opened, beside the engine."""
    _take_again_s: float = 0.0
    """Not before this instant, of the loop's clock: no shard was free."""

    def __post_init__(self) -> None:
        self.started_at = self.now()

    async def run(self) -> WorkerExit:
        """Work until no shard is left, or told to leave. A shard that is fenced away is another's;
        the worker takes the next one.

        Raises `EngineDied` when no engine can be started, and `StoreError` when the store refuses.
        """
        await self._tell(NodeState.STARTING)
        try:
            await self._work()
            return await self._depart()
        finally:
            await self._give_back_taken()
            await self.room.close()

    async def _work(self) -> None:
        """Start the engine and serve; flush, renew and report beside it. Ends when serving ends or
        one of them fails.

        Nothing is cancelled in the middle of a store call: a segment is either handed to the log
        and settled, or not begun.
        """
        settings = self.settings
        stop, ticks = asyncio.Event(), (self.desk.shard_ended, asyncio.Event(), asyncio.Event())
        beside = [
            asyncio.create_task(_every(interval_s, work, stop, sooner=tick))
            for (interval_s, work), tick in zip(
                (
                    (settings.flush_tick_s, self._flush),
                    (settings.renew_interval_s, self._renew),
                    (settings.status_interval_s, self._tell_where_we_are),
                ),
                ticks,
                strict=True,
            )
        ]
        serving = asyncio.create_task(self._serve())
        await asyncio.wait([serving, *beside], return_when=asyncio.FIRST_COMPLETED)
        stop.set()
        for tick in ticks:
            tick.set()
        if not serving.done():  # a task beside it failed: its exception rises from the gather
            serving.cancel()
        await asyncio.gather(*beside)
        await serving

    async def _open_engine(self) -> bool:
        """Start the engine, which takes long; False when told to leave meanwhile, or when no shard
        is left to do. Where none is held, the first one is opened meanwhile."""
        opening = asyncio.create_task(self.room.open())
        leaving = asyncio.create_task(self.leave.wait())
        try:
            return await self._until_open(opening, leaving)
        finally:
            leaving.cancel()
            opening.cancel()

    async def _until_open(
        self, opening: "asyncio.Task[None]", leaving: "asyncio.Task[bool]"
    ) -> bool:
        loop = asyncio.get_running_loop()
        patient_until_s = loop.time() + _TERMS_UNSTARTED * self.settings.lease_term_s
        ahead = not self.desk.shards
        while not self.leave.is_set():
            if ahead and not self.desk.shards:
                self._take_ahead()
            taking = [self._taking] if self._taking is not None else []
            await asyncio.wait(
                [opening, leaving, *taking],
                timeout=self.settings.status_interval_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if opening.done():
                opening.result()
                return True
            await self._see_taken()
            await self.desk.look()
            if self.desk.exhausted and self._taking is None:
                return False
            if ahead and loop.time() >= patient_until_s and self.desk.holds_all_that_is_left:
                ahead = False
                await self.desk.give_back_unstarted()
                log.info("shards given back, as the engine is not up yet")
        return False

    async def _serve(self) -> None:
        try:
            opened = await self._open_engine()
        except ShuntError:
            await self.desk.give_back_unstarted()
            raise
        while opened and not self.leave.is_set():
            self.room.changed.clear()
            await self._see_taken()
            if self.room.dead:
                await self._replace_engine()
            self._fill()
            if self._nothing_left():
                return
            await self._wait_for_change()

    def _nothing_left(self) -> bool:
        if self.desk.shards or self.room.running or self._taking is not None:
            return False
        return self.desk.exhausted

    async def _wait_for_change(self) -> None:
        """Until a request ends or a shard is open; while the engine could take more, look for
        shards now and then."""
        idle = self.admission.num_waiting == 0 and self._taking is None
        try:
            async with asyncio.timeout(self.settings.idle_poll_s if idle else None):
                await self.room.changed.wait()
        except TimeoutError:
            return

    def _fill(self) -> None:
        """Admit until the engine has enough; before the queue is too short, take a shard."""
        while self._wants_more():
            request = self.admission.next(len(self.room.running))
            if request is None:
                break
            self.room.admit(request)
        if self._wants_shard():
            self._take_ahead()

    def _wants_more(self) -> bool:
        if self.room.dead or self.leave.is_set():
            return False
        return len(self.room.running) < self.room.engine.wanted_requests

    def _wants_shard(self) -> bool:
        """Whether nothing waits; or so little that the serving order has no choice, and there is
        enough left for others."""
        if self.room.dead or self.leave.is_set():
            return False
        num_waiting = self.admission.num_waiting
        if num_waiting == 0:
            return True
        if self.admission.trying or num_waiting >= _ORDERED * self.room.engine.wanted_requests:
            return False
        shares = self.admission.shares_prefixes
        return self.desk.may_take_ahead(_SHARDS_SHARING if shares else _SHARDS_AHEAD)

    def _take_ahead(self) -> None:
        """Begin to take a shard, unless that is going on, or none was free just now."""
        now_s = asyncio.get_running_loop().time()
        if self._taking is not None or now_s < self._take_again_s:
            return
        if self.desk.holds_all_that_is_left:
            return
        self._taking = asyncio.create_task(self._take_shard())
        self._taking.add_done_callback(lambda _: self.room.changed.set())

    async def _see_taken(self) -> None:
        if self._taking is not None and self._taking.done():
            await self._taken()

    async def _taken(self) -> None:
        """Wait for the shard that is being taken, if one is. Raises what taking it raised."""
        if self._taking is None:
            return
        taking, self._taking = self._taking, None
        if not await taking:
            self._take_again_s = asyncio.get_running_loop().time() + self.settings.idle_poll_s

    async def _give_back_taken(self) -> None:
        """Give back a shard that was being taken when the worker left. It is waited for last: a
        store that is slow must not hold up a drain."""
        held = set(self.desk.shards)
        with suppress(*AWAY):
            await self._taken()
        await self.desk.release(set(self.desk.shards) - held)

    async def _take_shard(self) -> bool:
        try:
            opened = await self.desk.take()
        except AWAY as error:
            log.warning("store not reached, no shard taken: %s", error)
            return False
        if opened is None:
            return False
        ordinary: list[Request] = []
        for request_id, request in opened.shard.open.items():
            deaths = opened.suspects.get(request_id, 0)
            if request_id in opened.shard.refused:
                continue
            if deaths >= self.settings.max_deaths:
                self.admission.suspect(request, deaths - 1)
            else:
                ordinary.append(request)
        self.admission.add(ordinary)
        return True

    async def _replace_engine(self) -> None:
        """The engine died: save what it had made, find suspects, start another one."""
        self.tally.engine_deaths += 1
        returned = await self.room.take_back()
        for request in returned:
            self.desk.update(request)
        if not await self.carriers_live():
            self.told_to_leave("a node that carried the engine was lost")
            return
        detail = f"with {len(returned)} requests in flight"
        log.warning("engine died %s", detail)
        await self._record(EventKind.ENGINE_DIED, detail)
        for request in self.admission.engine_died(returned):
            await self._isolate(request)
        await self._flush()
        await self.room.close()
        await self._open_engine()

    async def _isolate(self, request: Request) -> None:
        detail = (
            f"prompt {request.request_id} was alone in the engine when it died, "
            f"{self.settings.max_deaths} times at the same token"
        )
        self.desk.fail(request.request_id, RowError(RowErrorCode.ENGINE_KILLED, detail))
        await self._record(EventKind.PROMPT_ISOLATED, detail)

    async def _flush(self) -> None:
        await self.desk.flush_due(self.room.peek, self.room.num_new)
        if not self.desk.shards:
            self.room.changed.set()

    async def _renew(self) -> None:
        await self.desk.renew(self.room.running)

    async def _depart(self) -> WorkerExit:
        """Save and give back what is held, and say goodbye."""
        code = WorkerExit.DONE
        if self.desk.shards or self.leave.is_set():
            code = WorkerExit.DRAINED
            await self._tell(NodeState.DRAINING)
            await self._save_all()
            await self.desk.release(list(self.desk.shards))
            await self._give_back_taken()
        await self._tell(NodeState.ENDED, code)
        return code

    async def _save_all(self) -> None:
        """Save, stop the engine, and save what it made meanwhile.

        An engine that hangs, as one does that lost a node of its pipeline, never says that it has
        stopped: what it had made is safe by then. Raises `StoreError` where the store does not take
        the last segment.
        """
        try:
            await self.desk.flush_all(self.room.peek)
        except AWAY as error:
            log.warning("not all is saved yet: %s", error)
        try:
            async with asyncio.timeout(self.settings.pause_limit_s):
                await self.room.pause()
            log.info("engine paused")
        except TimeoutError:
            log.warning("engine does not pause, it is left at what it has made")
        await self.desk.flush_all(self.room.peek)

    async def _tell_where_we_are(self) -> None:
        busy = NodeState.RUNNING if self.desk.shards else NodeState.IDLE
        await self._tell(busy if self.room.serving else NodeState.STARTING)
        with suppress(*AWAY):  # a store that is not to be reached has not said so
            if await asyncio.to_thread(is_cancelled, self.store, self.settings.run_id):
                self.told_to_leave(RUN_CANCELLED)
        watch = self.driver
        if watch is not None and await asyncio.to_thread(watch.silent_s) >= DRIVER_SILENT_S:
            self.told_to_leave(
                "the run's driver, who keeps its cost limit, has not been heard of for "
                f"{DRIVER_SILENT_S / 60:.0f} minutes"
            )

    def told_to_leave(self, reason: str) -> None:
        """Drain from now on. May be called more than once, from the event loop's thread."""
        if not self.leave.is_set():
            log.info("leaving reason=%s", reason)
            self.leave_reason = reason
        self.leave.set()
        self.desk.supply.stopped = True
        self.room.changed.set()

    async def _tell(self, state: NodeState, exit_code: WorkerExit | None = None) -> None:
        tally, now, running = self.tally, self.now(), len(self.room.running)
        at_s = (now - self.started_at).total_seconds()
        unsaved = self.desk.unsaved_tokens(self.room.num_new)
        sample = Sample(at_s, tally.output_tokens + unsaved, tally.rows_finished, running)
        status = NodeStatus(
            node_id=self.settings.node_id,
            pid=self.pid,
            state=state,
            started_at=self.started_at,
            updated_at=now,
            fingerprint=self.room.fingerprint,
            exit_code=exit_code,
            shards=self.desk.rows_terminal(ended=state is NodeState.ENDED),
            unsaved_tokens=unsaved,
            unsaved_rows=self.desk.unsaved_rows,
            running=running,
            course=self.course.saw(state, sample),
            **asdict(tally),
        )
        try:
            await asyncio.to_thread(write_status, self.store, self.settings.run_id, status)
        except AWAY as error:
            log.warning("status not stored: %s", error)

    async def _record(self, kind: EventKind, detail: str) -> None:
        event = Event(at=self.now(), kind=kind, node_id=self.settings.node_id, detail=detail)
        try:
            await asyncio.to_thread(record, self.store, self.settings.run_id, event)
        except AWAY as error:
            log.warning("event not stored: %s", error)


async def _every(
    interval_s: float,
    work: Callable[[], Awaitable[None]],
    stop: asyncio.Event,
    *,
    sooner: asyncio.Event,
) -> None:
    """Work at every interval, and as soon as `sooner` is set."""
    while not stop.is_set():
        with suppress(TimeoutError):
            async with asyncio.timeout(interval_s):
                await sooner.wait()
        sooner.clear()
        if not stop.is_set():
            await work()
