"""The seam between the worker and whatever generates tokens."""

from collections.abc import Mapping
from typing import Protocol

from shunt.checkpoint.generation import Generation
from shunt.checkpoint.request import Request


class Engine(Protocol):
    """An inference engine with continuous batching. Driven from one asyncio loop."""

    @property
    def fingerprint(self) -> str:
        """Numerics fingerprint: engine version, dtype, GPU type, TP, batch invariance."""
        ...

    @property
    def wanted_requests(self) -> int:
        """Requests worth having in the engine at once: those that it runs, and enough that wait in
        it to take the places of all that may end in one step."""
        ...

    async def generate(self, request: Request) -> Generation:
        """Run one request to its end and return the whole generation, saved tokens included.

        Raises `RequestRefused` (the request can never run), `RequestAborted` (the engine lives; the
        request may be given to it again) and `EngineDied` (build a new engine): after both, what
        `progress` last said of it is still true. Cancelling the awaiting task aborts the request.
        """
        ...

    def progress(self, since: Mapping[str, int] | None = None) -> Mapping[str, Generation]:
        """Every unfinished request's tokens so far by request id, saved ones included.

        With `since`, only the requests it names, each from that token position on: the price is
        that of the new tokens. A restarted generation is told whole all the same, as what was
        saved of it may be another. Never awaits; works after the engine core has died.
        """
        ...

    def num_new(self, since: Mapping[str, int]) -> int:
        """How many tokens `progress(since)` has, at the price of a look at each live request."""
        ...

    async def pause(self) -> None:
        """Generate no further token; `progress` then is final. For a drain: nothing twice."""
        ...

    async def stop(self) -> None:
        """End the engine and all its processes. Idempotent."""
        ...
