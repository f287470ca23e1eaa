"""The worker in hard times: fenced, cut off, with an engine that hangs or drops a request."""

import asyncio
import threading
from dataclasses import replace

import pytest

from shunt import keys
from shunt.checkpoint.done import done_shards
from shunt.checkpoint.generation import Generation
from shunt.checkpoint.request import Request
from shunt.dataset.prompt import Prompt
from shunt.errors import RequestAborted
from shunt.fleet.worker_exit import WorkerExit
from shunt.run.driver import DriverWatch
from shunt.run.event import EventKind
from shunt.store.errors import StoreDenied
from shunt.testing.faulty_store import Call, Fault, FaultyStore, When
from shunt.testing.memory_store import MemoryStore
from tests.workers.bench import RUN, SETTINGS, Bench, Dataset, dataset
from tests.workers.test_worker import LONG, assert_whole, kinds, long_prompts
from workers.engine.fake import FakeEngine


def long_prompts_of(shard_id: str, first: int, count: int) -> Dataset:
    return {
        shard_id: [
            Prompt(i, f"row-{i}", LONG, token_ids=(i, 7)) for i in range(first, first + count)
        ]
    }


def test_a_fenced_worker_takes_the_next_shard() -> None:
    """Its machine is sound: a lease that lapsed in a brown-out is no reason to leave."""

    async def main() -> tuple[WorkerExit, WorkerExit]:
        first = bench.worker(FaultyStore(store, wait_while_stopped), term_s=60.0, node_id="first")
        stopped = asyncio.create_task(first.run())
        while bench.num_generated < 100:
            await asyncio.sleep(0)
        awake.clear()
        second = bench.worker(store, node_id="second")
        running = asyncio.create_task(second.run())
        while len(bench.engines) < 2 or bench.engines[1].num_generated < 100:
            await asyncio.sleep(0)
        awake.set()
        while EventKind.FENCED not in kinds(store):
            await asyncio.sleep(0)
        second.told_to_leave("the test says so")
        return await stopped, await running

    awake = threading.Event()
    awake.set()

    def wait_while_stopped(_call: Call) -> None:
        awake.wait()

    bench, store = Bench(long_prompts(4)), MemoryStore()
    bench.make_engine = lambda: FakeEngine(tokens_per_s=1000.0)
    assert asyncio.run(main()) == (WorkerExit.DONE, WorkerExit.DRAINED)
    assert_whole(bench, store)


def test_a_corrupt_shard_is_left_alone_and_the_others_get_done() -> None:
    bench, store = Bench(dataset(3, 4)), MemoryStore()
    store.put(keys.segment(RUN, "000001", keys.Position(1, 0)), b"no segment")
    assert bench.run(store) is WorkerExit.DONE
    assert done_shards(store, RUN) == {"000000", "000002"}
    assert kinds(store) == [EventKind.SHARD_CORRUPT]


class Hung(FakeEngine):
    """As an engine that lost a node of its pipeline: it never says that it has stopped."""

    async def pause(self) -> None:
        await asyncio.Event().wait()


def test_a_drain_saves_what_a_hung_engine_had_made() -> None:
    async def main() -> WorkerExit:
        worker = bench.worker(store, term_s=60.0)
        running = asyncio.create_task(worker.run())
        while bench.num_generated < 100:
            await asyncio.sleep(0)
        worker.told_to_leave("the test says so")
        return await running

    late = replace(
        SETTINGS, checkpoint_interval_s=600.0, checkpoint_tokens=10**6, pause_limit_s=0.1
    )
    bench, store = Bench(long_prompts(4), settings=late), MemoryStore()
    bench.make_engine = lambda: Hung(tokens_per_s=1000.0)
    assert asyncio.run(main()) is WorkerExit.DRAINED
    saved = sum(len(g.token_ids) for g in bench.generations(store).values())
    assert saved >= 100


def test_credentials_that_lapse_are_waited_for() -> None:
    """Every call is refused for a while: nothing is lost, nothing is made twice, nobody leaves."""
    lapsed = threading.Event()

    def refuse(_call: Call) -> Fault | None:
        return Fault(When.BEFORE, StoreDenied("login has lapsed")) if lapsed.is_set() else None

    async def main() -> WorkerExit:
        running = asyncio.create_task(
            bench.worker(FaultyStore(store, refuse), term_s=60.0, node_id="first").run()
        )
        while bench.num_generated < 50:
            await asyncio.sleep(0)
        lapsed.set()
        while bench.num_generated < 1000 and not running.done():
            await asyncio.sleep(0.001)
        lapsed.clear()
        return await running

    bench, store = Bench({**long_prompts(2), **long_prompts_of("000001", 10, 6)}), MemoryStore()
    bench.make_engine = lambda: FakeEngine(max_concurrency=8, tokens_per_s=1000.0)
    assert asyncio.run(main()) is WorkerExit.DONE
    assert_whole(bench, store)
    assert bench.num_generated == 200 * 8


class Dropping(FakeEngine):
    """Drops a request in the middle, the first times that it gets there."""

    drops = 1

    async def generate(self, request: Request) -> Generation:
        if request.prompt_token_ids[0] == 1 and self.drops:
            task = asyncio.ensure_future(super().generate(request))
            while not (live := self.progress().get(request.request_id)) or len(live.token_ids) < 50:
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            self._live[request.request_id] = live
            self.drops -= 1
            raise RequestAborted("dropped")
        return await super().generate(request)


@pytest.mark.parametrize("drops", [1, 99])
def test_a_request_that_the_engine_drops_is_no_death_of_the_engine(drops: int) -> None:
    bench, store = Bench(long_prompts(4)), MemoryStore()
    bench.make_engine = Dropping
    Dropping.drops = drops
    assert bench.run(store) is WorkerExit.DONE
    assert len(bench.engines) == 1
    assert_whole(bench, store, but={1} if drops == 99 else set())
    finish = bench.generations(store)[1, 0].finish
    assert finish is not None
    assert (finish.error is not None) == (drops == 99)


def test_a_node_leaves_when_nobody_keeps_its_cost_limit() -> None:
    async def main() -> WorkerExit:
        worker = bench.worker(store, term_s=60.0)
        times = iter([0.0, *[float(n) for n in range(0, 10**6, 400)]])
        worker.driver = DriverWatch(store, RUN, lambda: next(times))
        return await worker.run()

    bench, store = Bench(long_prompts(4)), MemoryStore()
    bench.make_engine = lambda: FakeEngine(tokens_per_s=10.0)
    assert asyncio.run(main()) is WorkerExit.DRAINED


def test_a_shard_that_only_lacks_its_marker_is_not_resumed() -> None:
    """Its last owner gave it back, and a list that is a moment old does not have the marker."""
    bench, store = Bench(dataset(3, 2)), MemoryStore()
    assert bench.run(store) is WorkerExit.DONE
    for key in list(store.list(keys.done_prefix(RUN))):
        store.delete(key)
    assert bench.run(store) is WorkerExit.DONE
    assert len(list(store.list(keys.done_prefix(RUN)))) == 3
    assert EventKind.SHARD_RESUMED not in kinds(store)
