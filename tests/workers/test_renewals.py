"""Leases of a worker while its store is slow: one that waits makes no other lapse."""

import asyncio
import threading
from dataclasses import replace

import pytest

from shunt import keys
from shunt.retry import call_with_retry
from shunt.store.errors import StoreUnavailable
from shunt.testing.memory_store import MemoryStore
from tests.workers.bench import RUN, SETTINGS, Bench, dataset
from workers.setup import renewal_retry

SHARDS = ("000000", "000001", "000002")


class SlowStore(MemoryStore):
    """The first heartbeat that comes waits until the others were written, or gives up."""

    def __init__(self) -> None:
        super().__init__()
        self.watching = False
        self.stuck: list[str] = []
        self.written: set[str] = set()
        self.others = threading.Event()
        self.gave_up = False

    def put(self, key: str, data: bytes) -> None:
        if self.watching and key.endswith(".heartbeat"):
            shard_id = key.split("/")[3]
            if not self.stuck:
                self.stuck.append(shard_id)
                self.gave_up = not self.others.wait(30.0)
            self.written.add(shard_id)
            if self.written >= set(SHARDS) - set(self.stuck):
                self.others.set()
        super().put(key, data)


def test_a_renewal_that_waits_for_the_store_holds_up_no_other() -> None:
    store = SlowStore()

    async def main() -> None:
        worker = Bench(dataset(3, 2)).worker(store, term_s=60.0)
        for _ in SHARDS:
            assert await worker.desk.take() is not None
        store.watching = True
        await worker.desk.renew([])

    asyncio.run(main())
    assert store.written == set(SHARDS)
    assert not store.gave_up


@pytest.mark.parametrize("term_s", [1.0, 30.0, 3600.0])
def test_a_renewal_that_fails_has_ended_before_the_next_is_due(term_s: float) -> None:
    """A throttled store is asked a few times for each renewal, however long it throttles: what
    piled up would make leases of living owners lapse, and their shards be taken."""
    settings = replace(SETTINGS, lease_term_s=term_s)
    slept: list[float] = []
    asked = 0

    def throttled() -> None:
        nonlocal asked
        asked += 1
        raise StoreUnavailable(f"{keys.lease(RUN, '000000', 1)}: slow down")

    policy = renewal_retry(settings.renew_interval_s)
    with pytest.raises(StoreUnavailable):
        call_with_retry(throttled, policy=policy, transient=StoreUnavailable, sleep=slept.append)
    assert 1 < asked <= 4
    assert sum(slept) <= settings.renew_interval_s / 2
    assert policy.total_s <= settings.renew_interval_s / 2
