"""Counting the batches in flight."""

from concurrent.futures import Future
from typing import Any

from workers.pipeline.batches import BatchesInFlight


def test_every_batch_counts_those_in_flight_with_it() -> None:
    batches = BatchesInFlight()
    replies: list[Future[Any]] = []
    assert batches.starts == [0]

    def begin() -> None:
        batches.begin()
        replies.append(Future())
        batches.end_with(replies[-1])

    begin()
    begin()
    replies.pop(0).set_result(None)
    begin()
    replies.pop(0).set_exception(RuntimeError("lost"))
    replies.pop(0).set_result(None)
    begin()
    assert batches.starts == [0, 2, 2]
