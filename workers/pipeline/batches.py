"""How many batches a pipeline has in flight: one stage idles for each that is missing."""

from concurrent.futures import Future
from typing import Any


class BatchesInFlight:
    """Counts, at every batch that starts, how many are in flight with it."""

    def __init__(self) -> None:
        self._now = 0
        self._started: dict[int, int] = {}

    def begin(self) -> None:
        self._now += 1
        self._started[self._now] = self._started.get(self._now, 0) + 1

    def end_with(self, reply: "Future[Any]") -> None:
        """The batch that began last is over when its `reply` is read."""
        reply.add_done_callback(lambda _: self._end())

    def _end(self) -> None:
        self._now -= 1

    @property
    def starts(self) -> list[int]:
        """At index k: batches that started as the k-th in flight."""
        return [self._started.get(number, 0) for number in range(max(self._started, default=0) + 1)]
