"""The worker loop: take shards, keep the engine full, save every token, leave cleanly."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

from shunt.checkpoint.request import Request
from shunt.dataset.row_error import RowError, RowErrorCode
from shunt.run.cancellation import is_cancelled
from shunt.run.event import Event, EventKind, record
from shunt.run.node_status import NodeState, NodeStatus, write_status
from shunt.store.errors import StoreFull, StoreUnavailable
from shunt.store.protocol import Store
from workers.admission import Admission
from workers.engine_room import EngineRoom
from workers.settings import ExitCode, WorkerSettings
from workers.shards.desk import ShardDesk
from workers.shards.tally import Tally

log = logging.getLogger(__name__)

SLACK = 1.25
"""Requests in the engine per sequence that it runs at once, so that its queue is never empty."""


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
    leave: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by `told_to_leave`: a signal, a notice, a cancelled run."""
    started_at: datetime = field(init=False)

    def __post_init__(self) -> None:
        self.started_at = self.now()

    async def run(self) -> ExitCode:
        """Work until no shard is left (or one was fenced away and none is held), or told to leave.

        Raises `EngineDied` when no engine can be started, and `StoreError` when the store refuses.
        """
        await self._tell(NodeState.STARTING)
        try:
            if await self._open_engine():
                await self._work()
            return await self._depart()
        finally:
            await self.room.close()

    async def _open_engine(self) -> bool:
        """Start the engine, which takes long; False when told to leave meanwhile, or when no shard
        is left to do."""
        opening = asyncio.create_task(self.room.open())
        leaving = asyncio.create_task(self.leave.wait())
        while not self.leave.is_set():
            await asyncio.wait(
                [opening, leaving],
                timeout=self.settings.status_interval_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if opening.done():
                leaving.cancel()
                opening.result()
                return True
            await self.desk.look()
            if self.desk.exhausted:
                break
            await self._tell_where_we_are()
        leaving.cancel()
        opening.cancel()
        return False

    async def _work(self) -> None:
        """Serve, flush, renew and report side by side; ends when serving ends or one of them fails.

        Nothing is cancelled in the middle of a store call: a segment is either handed to the log
        and settled, or not begun.
        """
        settings = self.settings
        stop = asyncio.Event()
        beside = [
            asyncio.create_task(_every(settings.flush_tick_s, self._flush, stop)),
            asyncio.create_task(_every(settings.renew_interval_s, self._renew, stop)),
            asyncio.create_task(_every(settings.status_interval_s, self._tell_where_we_are, stop)),
        ]
        serving = asyncio.create_task(self._serve())
        await asyncio.wait([serving, *beside], return_when=asyncio.FIRST_COMPLETED)
        stop.set()
        if not serving.done():  # a task beside it failed: its exception rises from the gather
            serving.cancel()
        await asyncio.gather(*beside)
        await serving

    async def _serve(self) -> None:
        while not self.leave.is_set():
            self.room.changed.clear()
            if self.room.dead:
                await self._replace_engine()
            await self._fill()
            if self._nothing_left():
                return
            await self._wait_for_change()

    def _nothing_left(self) -> bool:
        if self.desk.shards or self.room.running:
            return False
        return self.desk.exhausted or self.desk.fenced

    async def _wait_for_change(self) -> None:
        """Until a request ends; while the engine could take more, look for shards now and then."""
        idle = self.admission.num_waiting == 0
        try:
            async with asyncio.timeout(self.settings.idle_poll_s if idle else None):
                await self.room.changed.wait()
        except TimeoutError:
            return

    async def _fill(self) -> None:
        """Admit until the engine has enough, taking shards as the queue runs dry."""
        target = int(self.room.engine.max_concurrency * SLACK)
        while len(self.room.running) < target and not (self.room.dead or self.leave.is_set()):
            request = self.admission.next(len(self.room.running))
            if request is not None:
                self.room.admit(request)
            elif self.admission.num_waiting or not await self._take_shard():
                return

    async def _take_shard(self) -> bool:
        try:
            opened = await self.desk.take()
        except (StoreUnavailable, StoreFull) as error:
            log.warning("store not reached, no shard taken: %s", error)
            return False
        if opened is None:
            return False
        suspects = {
            request_id: deaths
            for request_id, deaths in opened.suspects.items()
            if deaths >= self.settings.max_deaths
        }
        for request_id, request in opened.shard.open.items():
            if request_id in opened.shard.refused:
                continue
            if request_id in suspects:
                self.admission.suspect(request, suspects[request_id] - 1)
            else:
                self.admission.add([request])
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
        await self.desk.flush_due(self.room.peek)
        if not self.desk.shards:
            self.room.changed.set()

    async def _renew(self) -> None:
        await self.desk.renew(self.room.running)

    async def _depart(self) -> ExitCode:
        """Save and give back what is held, and say goodbye."""
        if not self.desk.shards and not self.leave.is_set():
            code = ExitCode.DONE if self.desk.exhausted else ExitCode.FENCED
        else:
            code = ExitCode.DRAINED
            await self._tell(NodeState.DRAINING)
            await self.room.pause()
            log.info("engine paused")
            await self.desk.flush_all(self.room.peek)
            await self.desk.release_all()
        await self._tell(NodeState.ENDED, code)
        return code

    async def _tell_where_we_are(self) -> None:
        busy = NodeState.RUNNING if self.desk.shards else NodeState.IDLE
        await self._tell(busy if self.room.serving else NodeState.STARTING)
        with suppress(
            StoreUnavailable, StoreFull
        ):  # a store that is not to be reached has not said so
            if await asyncio.to_thread(is_cancelled, self.store, self.settings.run_id):
                self.told_to_leave("the run was cancelled")

    def told_to_leave(self, reason: str) -> None:
        """Drain from now on. May be called more than once, from the event loop's thread."""
        if not self.leave.is_set():
            log.info("leaving reason=%s", reason)
        self.leave.set()
        self.room.changed.set()

    async def _tell(self, state: NodeState, exit_code: ExitCode | None = None) -> None:
        status = NodeStatus(
            node_id=self.settings.node_id,
            pid=self.pid,
            state=state,
            started_at=self.started_at,
            updated_at=self.now(),
            fingerprint=self.room.fingerprint,
            exit_code=exit_code,
            shards={s.shard_id: s.num_terminal for s in self.desk.shards.values()},
            rows_finished=self.tally.rows_finished,
            rows_failed=self.tally.rows_failed,
            output_tokens=self.tally.output_tokens,
            unsaved_tokens=sum(s.unsaved_tokens(self.room.peek) for s in self.desk.shards.values()),
            resumed_generations=self.tally.resumed_generations,
            resumed_tokens=self.tally.resumed_tokens,
            engine_deaths=self.tally.engine_deaths,
            segments=self.tally.segments,
            segment_bytes=self.tally.segment_bytes,
            running=len(self.room.running),
        )
        try:
            await asyncio.to_thread(write_status, self.store, self.settings.run_id, status)
        except (StoreUnavailable, StoreFull) as error:
            log.warning("status not stored: %s", error)

    async def _record(self, kind: EventKind, detail: str) -> None:
        event = Event(at=self.now(), kind=kind, node_id=self.settings.node_id, detail=detail)
        try:
            await asyncio.to_thread(record, self.store, self.settings.run_id, event)
        except (StoreUnavailable, StoreFull) as error:
            log.warning("event not stored: %s", error)


async def _every(
    interval_s: float, work: Callable[[], Awaitable[None]], stop: asyncio.Event
) -> None:
    while not stop.is_set():
        with suppress(TimeoutError):
            async with asyncio.timeout(interval_s):
                await stop.wait()
        if not stop.is_set():
            await work()
