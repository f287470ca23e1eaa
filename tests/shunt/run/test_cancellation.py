"""Orders: the newest one stands, and whoever goes on lifts what stood when they asked."""

import pytest

from shunt.run.cancellation import cancel, carry_on, is_cancelled, newest_order
from shunt.testing.memory_store import MemoryStore

RUN = "small-0123456789ab"


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def test_a_run_is_cancelled_once_and_goes_on(store: MemoryStore) -> None:
    assert cancel(store, RUN)
    assert not cancel(store, RUN)
    assert is_cancelled(store, RUN)
    for _ in range(2):
        carry_on(store, RUN, 1)
        assert not is_cancelled(store, RUN)
    assert cancel(store, RUN)
    assert is_cancelled(store, RUN)


@pytest.mark.parametrize("cancelled_before", [False, True])
def test_an_order_to_cancel_that_came_later_stands(
    store: MemoryStore, cancelled_before: bool
) -> None:
    """Between the command that goes on and the moment at which it has the run, a minute may pass;
    and another driver may have gone on meanwhile."""
    if cancelled_before:
        cancel(store, RUN)
    asked = newest_order(store, RUN)
    carry_on(store, RUN, asked)
    assert cancel(store, RUN)
    carry_on(store, RUN, asked)
    assert is_cancelled(store, RUN)


def test_going_on_with_a_run_that_nobody_cancelled_writes_nothing(store: MemoryStore) -> None:
    carry_on(store, RUN, newest_order(store, RUN))
    assert list(store.list("")) == []
