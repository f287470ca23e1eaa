"""A worker that starts while its store is away waits for it, but not for ever."""

import pytest

from shunt.store.errors import StoreUnavailable
from workers import patience


def test_a_store_that_comes_back_is_waited_for() -> None:
    answers = iter([StoreUnavailable("away"), StoreUnavailable("away"), 7])

    def read() -> int:
        answer = next(answers)
        if isinstance(answer, StoreUnavailable):
            raise answer
        return answer

    assert patience.once_reached(read) == 7


def test_a_store_that_stays_away_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "START_PATIENCE_S", 0.0)

    def read() -> int:
        raise StoreUnavailable("away")

    with pytest.raises(StoreUnavailable):
        patience.once_reached(read)
