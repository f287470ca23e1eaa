"""Leases: one winner per epoch, expiry on the observer's clock, fencing."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from shunt.checkpoint.gone import ASKED_AGAIN_S, owner_name, teller_of_gone
from shunt.checkpoint.lease import Lease, LeaseObserver, past_suspects
from shunt.errors import Fenced
from shunt.store.errors import StoreUnavailable
from shunt.store.opening import open_store
from shunt.store.protocol import Store
from shunt.testing.memory_store import MemoryStore

TERM_S = 30.0


class Clock:
    """A clock that the test turns."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def observer(store: Store, clock: Clock) -> LeaseObserver:
    return LeaseObserver(store, "run", TERM_S, clock)


def taken(observer: LeaseObserver, owner: str) -> Lease:
    lease = observer.acquire("000000", owner)
    assert lease is not None
    return lease


def test_the_first_owner_gets_epoch_one(observer: LeaseObserver) -> None:
    assert taken(observer, "a").epoch == 1


def test_a_held_shard_is_not_given_away(observer: LeaseObserver, clock: Clock) -> None:
    lease = taken(observer, "a")
    for _ in range(10):
        lease.renew()
        assert observer.acquire("000000", "b") is None
        clock.now_s += TERM_S * 0.9


def test_a_silent_owner_loses_the_shard_after_one_term(
    observer: LeaseObserver, clock: Clock
) -> None:
    taken(observer, "a").renew()
    assert observer.acquire("000000", "b") is None  # the first look starts the term
    clock.now_s += TERM_S - 1
    assert observer.acquire("000000", "b") is None
    clock.now_s += 1
    assert taken(observer, "b").epoch == 2


def test_an_owner_that_never_renewed_loses_the_shard_too(
    observer: LeaseObserver, clock: Clock
) -> None:
    taken(observer, "a")
    assert observer.acquire("000000", "b") is None
    clock.now_s += TERM_S
    assert taken(observer, "b").epoch == 2


def test_a_released_shard_is_free_at_once(observer: LeaseObserver) -> None:
    taken(observer, "a").release()
    assert taken(observer, "b").epoch == 2


def test_of_two_observers_of_a_lapsed_lease_one_wins(store: Store, clock: Clock) -> None:
    first, second = (LeaseObserver(store, "run", TERM_S, clock) for _ in range(2))
    taken(first, "a")
    assert first.acquire("000000", "b") is None
    assert second.acquire("000000", "c") is None
    clock.now_s += TERM_S
    assert taken(first, "b").epoch == 2
    assert second.acquire("000000", "c") is None


def test_a_renewal_finds_out_that_it_was_fenced(observer: LeaseObserver, clock: Clock) -> None:
    old = taken(observer, "a")
    observer.acquire("000000", "b")
    clock.now_s += TERM_S
    taken(observer, "b")
    with pytest.raises(Fenced) as caught:
        old.renew()
    assert (caught.value.epoch, caught.value.newer_epoch) == (1, 2)


def test_the_dead_owners_last_words_name_suspects(
    observer: LeaseObserver, store: Store, clock: Clock
) -> None:
    """Not those of an owner that released, nor of one whose epoch saved something."""
    for owner, in_flight, released in [("a", (1, 2), False), ("b", (2,), False), ("c", (9,), True)]:
        lease = taken(observer, owner)
        lease.renew(in_flight)
        if released:
            lease.release()
        observer.acquire("000000", "x")
        clock.now_s += TERM_S
    assert past_suspects(store, "run", "000000", fruitful=()) == {1: 1, 2: 2}
    assert past_suspects(store, "run", "000000", fruitful={1}) == {2: 1}


def test_a_renewal_that_comes_with_the_release_does_not_take_it_back(store: Store) -> None:
    """A worker renews beside everything else; an overtaken release would cost others a term."""
    lease = LeaseObserver(store, "run", TERM_S, lambda: 0.0).acquire("000000", "first")
    assert lease is not None
    lease.release()
    lease.renew()
    assert LeaseObserver(store, "run", TERM_S, lambda: 0.0).acquire("000000", "second") is not None


def test_an_outage_of_the_store_is_no_silence_of_the_owners(clock: Clock) -> None:
    """Nobody could renew while it lasted. An idle worker that took what others hold the moment the
    store was back would cost them all that they could not save."""
    store = Outage()
    owner = taken(LeaseObserver(store, "run", TERM_S, clock), "a")
    observer = LeaseObserver(store, "run", TERM_S, clock)
    assert observer.acquire("000000", "b") is None
    store.away = True
    for _ in range(10):
        clock.now_s += TERM_S
        with pytest.raises(StoreUnavailable):
            observer.acquire("000000", "b")
    store.away = False
    assert observer.acquire("000000", "b") is None
    clock.now_s += TERM_S / 3
    owner.renew()
    clock.now_s += TERM_S * 0.9
    assert observer.acquire("000000", "b") is None
    clock.now_s += TERM_S
    assert observer.acquire("000000", "b") is not None


class Outage(MemoryStore):
    """Can be away."""

    away = False

    def list(self, prefix: str) -> Iterator[str]:
        if self.away:
            raise StoreUnavailable("away", key=prefix)
        return super().list(prefix)


@pytest.mark.parametrize("beats", [0, 1])
@pytest.mark.parametrize("node_id", ["i-0.part-1", "worker-0"])
def test_the_shards_of_a_node_that_was_seen_to_end_are_free_at_once(
    store: Store, observer: LeaseObserver, clock: Clock, node_id: str, beats: int
) -> None:
    lease = taken(observer, owner_name(node_id, "0" * 32))
    for _ in range(beats):
        lease.renew()
    assert observer.acquire("000000", "b") is None

    say_gone = teller_of_gone(store, "run")
    say_gone("i-00")  # another machine
    clock.now_s += ASKED_AGAIN_S
    assert observer.acquire("000000", "b") is None
    say_gone(node_id.split(".")[0])
    say_gone(node_id.split(".")[0])
    clock.now_s += ASKED_AGAIN_S
    assert taken(observer, "b").epoch == 2


def test_a_wrong_word_of_a_living_owner_fences_it(store: Store, observer: LeaseObserver) -> None:
    living = taken(observer, owner_name("worker-0", "0" * 32))
    teller_of_gone(store, "run")("worker-0")
    assert taken(observer, "b").epoch == 2
    with pytest.raises(Fenced):
        living.renew()
    with pytest.raises(Fenced):
        living.check()
