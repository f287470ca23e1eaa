"""The engine and the requests inside it: started, counted, taken back when the engine dies."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace

from shunt.checkpoint.generation import Generation
from shunt.checkpoint.request import Request
from shunt.dataset.row_error import RowError, RowErrorCode
from shunt.errors import EngineDied, RequestAborted, RequestRefused
from workers.engine.protocol import Engine

MAX_ABORTS = 3
"""Times that a request may be dropped by an engine that lives."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class EngineRoom:
    """One engine at a time. Outcomes go to the two callbacks. Lives on the event loop."""

    start_engine: Callable[[], Awaitable[Engine]]
    max_starts: int
    on_finished: Callable[[str, Generation], None]
    on_refused: Callable[[str, RowError], None]
    on_again: Callable[[Request], None] = lambda _request: None
    """A request that the engine dropped goes in again, with the tokens that it had."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set whenever a request ended or the engine died."""
    dead: bool = False
    _engine: Engine | None = None
    _requests: dict[str, Request] = field(default_factory=dict[str, Request])
    _aborts: Counter[str] = field(default_factory=Counter[str])
    _tasks: dict[str, "asyncio.Task[None]"] = field(default_factory=dict[str, "asyncio.Task[None]"])

    @property
    def engine(self) -> Engine:
        assert self._engine is not None, "open() first"
        return self._engine

    @property
    def serving(self) -> bool:
        """Whether there is an engine that lives."""
        return self._engine is not None and not self.dead

    @property
    def running(self) -> list[str]:
        return list(self._requests)

    @property
    def fingerprint(self) -> str:
        return self._engine.fingerprint if self._engine else ""

    async def open(self) -> None:
        """Start the engine; tries `max_starts` times. Raises what the last start raised."""
        for attempt in range(1, self.max_starts + 1):
            try:
                self._engine = await self.start_engine()
            except EngineDied as error:
                log.warning("engine start failed attempt=%d: %s", attempt, error)
                if attempt == self.max_starts:
                    raise
            else:
                self.dead = False
                return

    def peek(self, since: Mapping[str, int] | None = None) -> Mapping[str, Generation]:
        """`Engine.progress`; empty before the first engine."""
        return self.engine.progress(since) if self._engine else {}

    def num_new(self, since: Mapping[str, int]) -> int:
        """`Engine.num_new`; 0 before the first engine."""
        return self.engine.num_new(since) if self._engine else 0

    def admit(self, request: Request) -> None:
        self._requests[request.request_id] = request
        task = asyncio.create_task(self._generate(request), name=request.request_id)
        self._tasks[request.request_id] = task

    def abort(self, request_ids: set[str]) -> None:
        """Stop generating requests whose shard was lost."""
        for request_id in request_ids & self._requests.keys():
            self._tasks[request_id].cancel()
            self._forget(request_id)

    async def take_back(self) -> list[Request]:
        """After a death: the requests that were in flight, each with the tokens it had."""
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        progress = self.peek()
        returned = [
            replace(request, saved=progress.get(request_id, request.saved))
            for request_id, request in self._requests.items()
        ]
        self._requests.clear()
        self._tasks.clear()
        return returned

    async def pause(self) -> None:
        """No token after this: what `peek` says then is final."""
        if self._engine is None or self.dead:
            return
        try:
            await self._engine.pause()
        except EngineDied as error:
            log.warning("engine died while pausing: %s", error)
            self.dead = True

    async def close(self) -> None:
        """End the engine and everything in it."""
        for task in self._tasks.values():
            task.cancel()
        if self._engine is not None:
            await self._engine.stop()

    async def _generate(self, request: Request) -> None:
        try:
            generation = await self.engine.generate(request)
        except RequestRefused as refusal:
            error = RowError(RowErrorCode(refusal.code), str(refusal))
            self._forget(request.request_id)
            self.on_refused(request.request_id, error)
        except RequestAborted as abort:
            self._admit_again(request, abort)
        except EngineDied:
            self.dead = True
        else:
            self._forget(request.request_id)
            self.on_finished(request.request_id, generation)
        self.changed.set()

    def _admit_again(self, request: Request, abort: RequestAborted) -> None:
        """Others in the engine go on undisturbed. A request that is dropped every time is refused:
        a worker must not turn round one row for ever."""
        name = request.request_id
        self._aborts[name] += 1
        log.warning("request dropped times=%d: %s", self._aborts[name], abort)
        saved = self.peek().get(name, request.saved)
        self._forget(name)
        if self._aborts[name] > MAX_ABORTS:
            self.on_refused(name, RowError(RowErrorCode.ENGINE_REFUSED, f"{abort}, every time"))
            return
        again = replace(request, saved=saved)
        self.on_again(again)
        self.admit(again)

    def _forget(self, request_id: str) -> None:
        self._requests.pop(request_id, None)
        self._tasks.pop(request_id, None)
