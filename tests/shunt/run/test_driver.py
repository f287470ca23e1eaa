"""The driver lease in virtual time: one driver at a time, and everybody can see that it lives."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from shunt import keys
from shunt.run.driver import (
    STALLED_S,
    DriveGivenUp,
    DrivenElsewhere,
    DriverBeat,
    DriverLease,
    DriverWatch,
    Hold,
    Place,
    own_place,
    take_drive,
)
from shunt.store.errors import StoreUnavailable
from shunt.testing.memory_store import MemoryStore

RUN = "small-0123456789ab"
ELSEWHERE = Place(host="other", machine="another boot", pid=1, started="7")


@dataclass
class Clock:
    """Time that passes by waiting; `meanwhile` is what others do then."""

    now_s: float = 0.0
    meanwhile: Callable[[], object] = field(default=lambda: None)

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, for_s: float) -> bool | None:
        self.now_s += for_s
        self.meanwhile()


class CutStore(MemoryStore):
    """Can be cut off."""

    cut = False

    def get(self, key: str) -> bytes:
        if self.cut:
            raise StoreUnavailable("cut off", key=key)
        return super().get(key)


@pytest.fixture
def store() -> CutStore:
    return CutStore()


def taken(store: MemoryStore, clock: Clock, place: Place | None = None) -> DriverLease:
    return take_drive(store, RUN, monotonic=clock.monotonic, sleep=clock.sleep, own=place)


def test_a_second_driver_is_refused_as_soon_as_the_first_is_seen_to_live(store: CutStore) -> None:
    first = taken(store, Clock(), ELSEWHERE)
    clock = Clock()
    clock.meanwhile = lambda: first.beat() if clock.now_s == 7 else None
    with pytest.raises(DrivenElsewhere, match="process 1 on other"):
        taken(store, clock)
    assert clock.now_s == 7
    assert first.look() is Hold.HELD


def test_a_driver_of_this_process_is_no_dead_one(store: CutStore) -> None:
    first, clock = taken(store, Clock()), Clock()
    clock.meanwhile = first.beat
    with pytest.raises(DrivenElsewhere):
        taken(store, clock)


def test_a_silent_driver_is_replaced_after_a_term_and_finds_out(store: CutStore) -> None:
    first, clock = taken(store, Clock(), ELSEWHERE), Clock()
    second = taken(store, clock)
    assert 60 <= clock.now_s < 62
    assert first.look() is Hold.LOST
    assert first.lost
    assert second.look() is Hold.HELD
    first.beat()
    with pytest.raises(DrivenElsewhere, match=f"process {os.getpid()}"):
        taken(store, Clock(meanwhile=second.beat), ELSEWHERE)


def test_a_run_that_was_given_back_is_free_at_once(store: CutStore) -> None:
    with taken(store, Clock(), ELSEWHERE):
        pass
    clock = Clock()
    assert taken(store, clock).epoch == 2
    assert clock.now_s == 0


def test_a_driver_that_died_on_this_machine_is_not_waited_for(store: CutStore) -> None:
    script = (
        "import sys; sys.path.insert(0, '.')\n"
        "from shunt.run.driver import own_place\n"
        "print(own_place().model_dump_json())"
    )
    told = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    taken(store, Clock(), Place.model_validate_json(told.stdout))
    clock = Clock()
    assert taken(store, clock).epoch == 2
    assert clock.now_s == 0


def test_of_two_that_wait_one_wins(store: CutStore) -> None:
    taken(store, Clock(), ELSEWHERE)
    clock, won = Clock(), list[DriverLease]()

    def another() -> None:
        if clock.now_s == 60 and not won:
            won.append(taken(store, Clock(now_s=60), own_place()))
        for lease in won:
            lease.beat()

    clock.meanwhile = another
    with pytest.raises(DrivenElsewhere):
        taken(store, clock)
    assert won[0].look() is Hold.HELD


def test_without_the_store_nobody_knows(store: CutStore) -> None:
    lease = taken(store, Clock())
    store.cut = True
    assert lease.look() is Hold.UNKNOWN
    assert not lease.lost


def test_a_node_knows_how_long_the_driver_has_been_silent(store: CutStore) -> None:
    lease, clock = taken(store, Clock()), Clock()
    watch = DriverWatch(store, RUN, clock.monotonic)
    for _ in range(20):
        clock.sleep(60.0)
        lease.beat()
        assert watch.silent_s() == 0
    for minute in range(1, 16):
        clock.sleep(60.0)
        assert watch.silent_s() == 60 * minute
    store.cut = True
    clock.sleep(60.0)
    assert watch.silent_s() == 0, "a store that does not answer says nothing of the driver"


def test_whoever_waits_for_a_run_may_be_told_to_end(store: CutStore) -> None:
    """Ctrl-C: an event that is set ends every wait at once, and the run is not taken."""
    taken(store, Clock(), ELSEWHERE)
    told = threading.Event()
    told.set()
    with pytest.raises(DriveGivenUp):
        take_drive(store, RUN, monotonic=Clock().monotonic, sleep=told.wait)
    assert taken(store, Clock()).epoch == 2


def test_a_drive_that_hangs_is_silent_though_its_thread_lives(store: CutStore) -> None:
    clock = Clock()
    lease = take_drive(store, RUN, monotonic=clock.monotonic, sleep=clock.sleep, beat_s=0.01)

    def beats_within(limit_s: float) -> bool:
        before, until_s = store.get(keys.driver_beat(RUN)), time.monotonic() + limit_s
        while time.monotonic() < until_s:
            if store.get(keys.driver_beat(RUN)) != before:
                return True
        return False

    with lease:
        assert beats_within(60)
        clock.now_s += STALLED_S + 1
        beats_within(0.5)  # one may be on its way
        assert not beats_within(0.5)
        lease.passed()
        assert beats_within(60)


def test_giving_a_run_back_is_the_last_word(store: CutStore) -> None:
    lease = taken(store, Clock())
    with lease:
        pass
    lease.beat()  # a heartbeat that was on its way
    assert DriverBeat.model_validate_json(store.get(keys.driver_beat(RUN))).released
