"""A held shard: what it saves, when it is complete, and what a restart means."""

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from shunt.checkpoint.generation import Finish, Generation, Resumption, tail
from shunt.checkpoint.lease import LeaseObserver
from shunt.checkpoint.log import CheckpointLog
from shunt.checkpoint.progress import replay
from shunt.checkpoint.request import Request, digest_of
from shunt.dataset.row_error import RowError, RowErrorCode
from shunt.errors import Fenced
from shunt.job.sampling import Sampling
from shunt.store.errors import StoreUnavailable
from shunt.store.opening import open_store
from shunt.store.protocol import Store
from shunt.testing.faulty_store import Call, Fault, FaultyStore, When
from workers.shards.cadence import Cadence
from workers.shards.held_shard import HeldShard, ShardCounts

RUN, SHARD = "run", "000000"
DONE = Finish("stop", None, "text")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path))


def hold(store: Store, *requests: Request, term_s: float = 0.0) -> HeldShard:
    """Take the shard over at once: with a term of zero every lease has lapsed."""
    lease = LeaseObserver(store, RUN, term_s, lambda: 0.0).acquire(SHARD, "owner")
    assert lease is not None
    log = CheckpointLog(lease, replay(store, RUN, SHARD))
    open_requests = {request.request_id: request for request in requests}
    return HeldShard(log, Cadence(10, 1000, 0, 0), open_requests, ShardCounts(len(requests), 0, 0))


def request(request_id: str = "0.0", saved: Iterable[int] = ()) -> Request:
    tokens = tuple(saved)
    return Request(request_id, (1,), Sampling(), Generation(token_ids=tokens) if tokens else None)


def flush(shard: HeldShard, **progress: Generation) -> int:
    named = {name.replace("r", "").replace("_", "."): g for name, g in progress.items()}

    def peek(since: Mapping[str, int]) -> Mapping[str, Generation]:
        live = {name: named[name] for name in since if name in named}
        restarted = Resumption.RESTARTED
        return {n: g if g.resumption is restarted else tail(g, since[n]) for n, g in live.items()}

    return asyncio.run(shard.flush(peek, 0.0))


def tokens_of(store: Store) -> tuple[int, ...]:
    return replay(store, RUN, SHARD).generations[0, 0].token_ids


def test_only_new_tokens_are_appended(store: Store) -> None:
    shard = hold(store, request())
    assert flush(shard, r0_0=Generation(token_ids=(1, 2))) == 2
    assert flush(shard, r0_0=Generation(token_ids=(1, 2, 3))) == 1
    assert flush(shard, r0_0=Generation(token_ids=(1, 2, 3))) == 0
    assert tokens_of(store) == (1, 2, 3)
    assert shard.log.num_segments == 2


def test_a_shard_is_complete_once_the_finished_rows_are_saved(store: Store) -> None:
    shard = hold(store, request())
    shard.finish("0.0", Generation(token_ids=(1,), finish=DONE))
    assert (shard.num_unfinished, shard.complete) == (0, False)
    flush(shard)
    assert shard.complete
    assert shard.done().num_output_tokens == 1
    assert replay(store, RUN, SHARD).finished(0, 1)


def test_rows_that_ended_count_before_they_are_saved(store: Store) -> None:
    """A row of two choices once both have ended."""
    shard = hold(store, request("0.0"), request("0.1"), request("1.0"))
    for name, ended in (("0.0", 0), ("1.0", 1), ("0.1", 2)):
        shard.finish(name, Generation(token_ids=(1,), finish=DONE))
        assert shard.unsaved_rows == ended
    flush(shard)
    assert shard.unsaved_rows == 0


def test_an_error_row_keeps_the_saved_tokens(store: Store) -> None:
    first = hold(store, request())
    flush(first, r0_0=Generation(token_ids=(1, 2)))
    shard = hold(store, request(saved=(1, 2)))
    shard.fail("0.0", RowError(RowErrorCode.ENGINE_KILLED, "died"))
    flush(shard)
    generation = replay(store, RUN, SHARD).generations[0, 0]
    assert generation.token_ids == (1, 2)
    assert generation.finish is not None
    assert generation.finish.error is not None
    assert shard.done().num_error_rows == 1


def test_a_restart_that_repeats_the_saved_tokens_goes_on_behind_them(store: Store) -> None:
    flush(hold(store, request()), r0_0=Generation(token_ids=(1, 2, 3)))
    shard = hold(store, request(saved=(1, 2, 3)))
    restarted = Resumption.RESTARTED
    assert flush(shard, r0_0=Generation(token_ids=(1, 2), resumption=restarted)) == 0
    assert flush(shard, r0_0=Generation(token_ids=(1, 2, 3, 4), resumption=restarted)) == 1
    assert tokens_of(store) == (1, 2, 3, 4)


def test_a_restart_that_differs_replaces_the_saved_tokens(store: Store) -> None:
    flush(hold(store, request()), r0_0=Generation(token_ids=(1, 2, 3)))
    shard = hold(store, request(saved=(1, 2, 3)))
    restarted = Resumption.RESTARTED
    flush(shard, r0_0=Generation(token_ids=(1, 9, 9, 9), resumption=restarted))
    flush(shard, r0_0=Generation(token_ids=(1, 9, 9, 9, 5), resumption=restarted))
    assert tokens_of(store) == (1, 9, 9, 9, 5)


def test_a_restart_that_ends_before_the_saved_tokens_replaces_them(store: Store) -> None:
    flush(hold(store, request()), r0_0=Generation(token_ids=(1, 2, 3)))
    shard = hold(store, request(saved=(1, 2, 3)))
    shard.finish("0.0", Generation(token_ids=(1, 2), resumption=Resumption.RESTARTED, finish=DONE))
    flush(shard)
    assert tokens_of(store) == (1, 2)


def test_the_first_segment_of_a_new_owner_fences_the_old_one(store: Store) -> None:
    old = hold(store, request())
    flush(old, r0_0=Generation(token_ids=(1,)))
    new = hold(store, request(saved=(1,)))
    flush(new, r0_0=Generation(token_ids=(1, 2)))
    flush(old, r0_0=Generation(token_ids=(1, 9, 9)))
    assert tokens_of(store) == (1, 2)
    with pytest.raises(Fenced):
        old.log.lease.renew()


@pytest.mark.parametrize("when", When)
def test_a_segment_of_unknown_fate_is_settled_before_the_next(store: Store, when: When) -> None:
    """The store fails one append, before or after it happened: no token is lost or doubled."""
    failed: list[Call] = []

    def first_segment(call: Call) -> Fault | None:
        if call.verb != "put_if_absent" or "/segments/" not in call.key or failed:
            return None
        failed.append(call)
        return Fault(when)

    shard = hold(FaultyStore(store, first_segment), request())
    with nullcontext() if when is When.REPLY_LOST else pytest.raises(StoreUnavailable):
        flush(shard, r0_0=Generation(token_ids=(1, 2)))
    flush(shard, r0_0=Generation(token_ids=(1, 2, 3)))
    assert failed
    assert tokens_of(store) == (1, 2, 3)
    assert shard.log.num_segments == 2


def test_a_restart_that_diverges_is_written_whole_once(store: Store) -> None:
    """From then on the log is this engine's: each flush adds what is new."""
    shard = hold(store, request(saved=range(10)))
    other = [tuple(range(100, 100 + length)) for length in (12, 14, 16)]
    restarted = [Generation(token_ids=ids, resumption=Resumption.RESTARTED) for ids in other]
    assert [flush(shard, r0_0=generation) for generation in restarted] == [12, 2, 2]
    assert tokens_of(store) == other[-1]


def test_a_second_restart_of_a_row_may_diverge_again(store: Store) -> None:
    shard = hold(store, request(saved=range(10)))
    first, second = (tuple(range(at, at + 12)) for at in (100, 200))
    flush(shard, r0_0=Generation(token_ids=first, resumption=Resumption.RESTARTED))
    shard.replace(request(saved=first))  # its engine died
    flush(shard, r0_0=Generation(token_ids=second, resumption=Resumption.RESTARTED))
    assert tokens_of(store) == second


def test_answers_to_another_prompt_are_begun_again_in_the_log(store: Store) -> None:
    """Even where the tokens are equal at first; and what is new is then appended as ever."""
    flush(hold(store, request()), r0_0=Generation(token_ids=(1, 2)))
    saved = replay(store, RUN, SHARD).generations[0, 0]
    other = replace(request(), prompt_token_ids=(1, 9), saved=saved)
    assert other.has_other_prompt
    shard = hold(store, other)
    again = Generation(token_ids=(1, 2), resumption=Resumption.RESTARTED)
    assert flush(shard, r0_0=again) == 2
    assert flush(shard, r0_0=replace(again, token_ids=(1, 2, 3))) == 1
    found = replay(store, RUN, SHARD).generations[0, 0]
    assert (found.token_ids, found.prompt_digest) == ((1, 2, 3), digest_of((1, 9)))
