"""Other plans when the market changes, worked out beside the watch and never in its way."""

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

from shunt.aws.nodes.pool import Blocklist, Pool, SlotSpec

REOPENED_INTERVALS = 10
"""Pools that only open again are weighed so many times more seldom than those that close."""


@dataclass(frozen=True, slots=True)
class Remaining:
    """What of a run is still to do."""

    share: float
    """Of its rows."""
    horizon_s: float
    """How long it goes on, as far as anybody knows."""
    deadline_s: float | None
    """Seconds until its deadline."""


Found = tuple[Mapping[str, SlotSpec], str]


class Planner(Protocol):
    """Who knows better nodes when the market changes."""

    @property
    def num_workers(self) -> int:
        """Of the plan as it stands."""
        ...

    @property
    def whole_s(self) -> float:
        """How long the whole work takes, by the plan."""
        ...

    def replanned(
        self, remaining: Remaining, *, closed: Blocklist, holding: Mapping[str, Pool]
    ) -> Found | None:
        """Other slots, and why; None where those there are stay. `holding`: pools by slot. Called
        from a thread, one call at a time."""
        ...


@dataclass(slots=True)
class Replanning:
    """At most one question at a time, and not sooner than `every_s` after the one before.

    A solver takes up to tens of seconds, and every refusal closes a pool: asked within the look,
    notices and budget would wait for it most of the time of a drought.
    """

    planner: Planner
    monotonic: Callable[[], float]
    every_s: float
    _closed: frozenset[tuple[str, str, str]] = frozenset()
    """As the last question had it."""
    _asked_s: float | None = None
    _pending: "Future[Found | None] | None" = None
    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "planner"))

    def ask(self, remaining: Remaining, closed: Blocklist, holding: Mapping[str, Pool]) -> None:
        """Begin to look for another plan, where pools have closed or opened since the last one."""
        now_closed = closed.closed()
        if self._pending is not None or now_closed == self._closed:
            return
        opened_only = now_closed < self._closed
        wait_s = self.every_s * (REOPENED_INTERVALS if opened_only else 1)
        if self._asked_s is not None and self.monotonic() - self._asked_s < wait_s:
            return
        self._closed, self._asked_s = now_closed, self.monotonic()
        self._pending = self._thread.submit(
            self.planner.replanned, remaining, closed=closed.copy(), holding=dict(holding)
        )

    def answer(self) -> Found | None:
        """The other plan, once it is found; what the planner raised rises here."""
        if self._pending is None or not self._pending.done():
            return None
        found, self._pending = self._pending, None
        return found.result()

    def close(self) -> None:
        """No plan any more; what is being worked out is not waited for."""
        self._thread.shutdown(wait=False, cancel_futures=True)
