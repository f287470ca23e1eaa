"""Replay: seals decide what counts, gains continue or restart, gaps are corruption."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from shunt import keys
from shunt.checkpoint.generation import Finish, Generation
from shunt.checkpoint.progress import apply_gains, replay
from shunt.checkpoint.segment import Gain, SegmentHeader, encode_segment
from shunt.dataset.row_error import RowError, RowErrorCode
from shunt.errors import CorruptSegment
from shunt.keys import Position
from shunt.store.opening import open_store
from shunt.store.protocol import Store

RUN, SHARD = "run", "000000"
DONE = Finish("stop", None, "text")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path))


def write(
    store: Store, epoch: int, sequence: int, *gains: Gain, seals: Mapping[int, int] | None = None
) -> None:
    position = Position(epoch, sequence)
    header = SegmentHeader(RUN, SHARD, position, f"owner-{epoch}", seals or {})
    key = keys.segment(RUN, SHARD, position)
    assert store.put_if_absent(key, encode_segment(header, gains))


def gain(base: int, *tokens: int, index: int = 0, finish: Finish | None = None) -> Gain:
    return Gain(index, 0, base, Generation(token_ids=tokens, finish=finish))


def tokens_of(store: Store, cut: Mapping[int, int] | None = None) -> tuple[int, ...]:
    return replay(store, RUN, SHARD, cut=cut).generations[0, 0].token_ids


def test_an_empty_log_has_no_progress(store: Store) -> None:
    progress = replay(store, RUN, SHARD)
    assert (progress.generations, progress.cut) == ({}, {})


def test_segments_of_one_owner_add_up(store: Store) -> None:
    write(store, 1, 0, gain(0, 1, 2))
    write(store, 1, 1, gain(2, 3))
    assert tokens_of(store) == (1, 2, 3)


def test_a_late_segment_of_a_sealed_owner_is_litter(store: Store) -> None:
    write(store, 1, 0, gain(0, 1))
    write(store, 2, 0, gain(1, 7), seals={1: 0})
    write(store, 1, 1, gain(1, 9))
    assert tokens_of(store) == (1, 7)


def test_before_the_new_owner_seals_the_old_one_still_counts(store: Store) -> None:
    write(store, 1, 0, gain(0, 1))
    write(store, 1, 1, gain(1, 2))
    assert tokens_of(store) == (1, 2)


def test_an_owner_that_seals_after_a_newer_one_is_litter(store: Store) -> None:
    """Epochs 2 and 3 both took over from 1; 3 did not see 2's seal, so 2 counts for nothing."""
    write(store, 1, 0, gain(0, 1))
    write(store, 3, 0, gain(1, 5), seals={1: 0, 2: -1})
    write(store, 2, 0, gain(1, 8), seals={1: 0})
    write(store, 2, 1, gain(2, 8))
    assert tokens_of(store) == (1, 5)


def test_the_newest_seal_keeps_what_older_seals_cut(store: Store) -> None:
    write(store, 1, 0, gain(0, 1))
    write(store, 2, 0, gain(1, 2), seals={1: 0})
    write(store, 1, 1, gain(1, 9))
    write(store, 3, 0, gain(2, 3), seals={1: 0, 2: 0})
    write(store, 2, 1, gain(2, 9))
    assert tokens_of(store) == (1, 2, 3)


def test_a_segment_after_a_gap_does_not_count(store: Store) -> None:
    write(store, 1, 0, gain(0, 1))
    write(store, 1, 2, gain(1, 9))
    assert tokens_of(store) == (1,)


def test_an_old_cut_gives_the_old_answer(store: Store) -> None:
    write(store, 1, 0, gain(0, 1))
    write(store, 1, 1, gain(1, 2))
    assert tokens_of(store, cut={1: 0}) == (1,)


def test_base_zero_restarts_a_generation(store: Store) -> None:
    write(store, 1, 0, gain(0, 1, 2))
    write(store, 2, 0, gain(0, 5), seals={1: 0})
    assert tokens_of(store) == (5,)


@pytest.mark.parametrize("base", [1, 3])
def test_a_gain_that_does_not_continue_is_corruption(store: Store, base: int) -> None:
    write(store, 1, 0, gain(0, 1, 2))
    write(store, 1, 1, gain(base, 9))
    with pytest.raises(CorruptSegment, match="continues prompt 0"):
        replay(store, RUN, SHARD)


def test_a_segment_copied_to_another_place_is_corruption(store: Store) -> None:
    write(store, 1, 0, gain(0, 1))
    data = store.get(keys.segment(RUN, SHARD, Position(1, 0)))
    store.put_if_absent(keys.segment(RUN, SHARD, Position(1, 1)), data)
    with pytest.raises(CorruptSegment, match="another place"):
        replay(store, RUN, SHARD)


def test_a_prompt_is_terminal_when_all_choices_are_or_one_failed(store: Store) -> None:
    error = Finish("error", None, "", RowError(RowErrorCode.ENGINE_KILLED, "died"))
    write(
        store,
        1,
        0,
        gain(0, 1, finish=DONE),
        gain(0, index=1, finish=error),
        Gain(2, 0, 0, Generation(token_ids=(1,), finish=DONE)),
        Gain(2, 1, 0, Generation(token_ids=(1,))),
    )
    progress = replay(store, RUN, SHARD)
    assert [progress.finished(i, 2) for i in (0, 1, 2, 3)] == [False, True, False, False]
    assert progress.finished(0, 1)


def test_engines_of_unequal_numerics_are_told_apart() -> None:
    gains = [
        ("a", Gain(0, 0, 0, Generation(token_ids=(1,), fingerprint="cpu"))),
        ("b", Gain(0, 0, 1, Generation(token_ids=(2,), fingerprint="l4"))),
        ("c", Gain(0, 0, 2, Generation(token_ids=(3,), fingerprint="l4"))),
    ]
    assert apply_gains(gains)[0, 0].fingerprint == "mixed"
