"""Cadence: a bounded number of segments, a bounded loss."""

import pytest

from workers.shards.cadence import LOSS_SHARE, Cadence


@pytest.mark.parametrize(("age_s", "segments"), [(300, 27), (1800, 56), (36_000, 106)])
def test_segments_grow_with_the_logarithm_of_the_shards_age(age_s: int, segments: int) -> None:
    cadence = Cadence(interval_s=10, tokens=10**9, started_s=0, flushed_s=0)
    flushes = 0
    for now_s in range(age_s):
        if cadence.due(now_s, unsaved_tokens=1):
            assert now_s - cadence.flushed_s <= max(10, now_s * LOSS_SHARE) + 1
            cadence.flushed(now_s)
            flushes += 1
    assert flushes == pytest.approx(segments, abs=4)


def test_many_tokens_make_it_due_early_but_not_at_every_tick() -> None:
    cadence = Cadence(interval_s=10, tokens=1000, started_s=0, flushed_s=0)
    assert not cadence.due(3, 999)
    assert cadence.due(3, 1000)
    assert not cadence.due(1, 10**6)
