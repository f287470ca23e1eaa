"""The worker loop with the fake engine: drains, deaths, fencing, refusals, exit codes."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace

import pytest

from shunt.checkpoint.done import done_shards
from shunt.checkpoint.generation import Generation
from shunt.checkpoint.lease import Lease, LeaseObserver
from shunt.checkpoint.request import Request
from shunt.dataset.prompt import Prompt
from shunt.dataset.row_error import RowError, RowErrorCode
from shunt.errors import EngineDied
from shunt.fleet.worker_exit import WorkerExit
from shunt.job.sampling import Sampling
from shunt.run.cancellation import cancel
from shunt.run.event import Event, EventKind, read_events
from shunt.run.node_status import NodeState, read_statuses
from shunt.store.protocol import Store
from shunt.testing.faulty_store import Call, FaultyStore
from shunt.testing.memory_store import MemoryStore
from tests.workers.bench import RUN, SETTINGS, Bench, Dataset, dataset
from workers.engine.fake import FakeEngine, FakeFaults, expected_generation
from workers.worker import Worker

LONG = Sampling(max_tokens=200, ignore_eos=True)


def long_prompts(count: int, shard_id: str = "000000") -> Dataset:
    return {shard_id: [Prompt(i, f"row-{i}", LONG, token_ids=(i, 7)) for i in range(count)]}


def expected_tokens(prompt: Prompt) -> tuple[int, ...]:
    assert prompt.token_ids is not None
    return expected_generation(Request("", prompt.token_ids, prompt.sampling)).token_ids


def assert_whole(bench: Bench, store: Store, *, but: AbstractSet[int] = frozenset()) -> None:
    """Every prompt finished with the tokens of an undisturbed run, except those named."""
    found = bench.generations(store)
    for prompts in bench.dataset.values():
        for prompt in prompts:
            if prompt.index not in but:
                generation = found[prompt.index, 0]
                assert generation.finish is not None
                assert generation.token_ids == expected_tokens(prompt)


def kinds(store: Store) -> list[EventKind]:
    events: dict[str, Event] = {}
    read_events(store, RUN, into=events)
    return [event.kind for _, event in sorted(events.items())]


def test_a_run_is_done_in_one_go() -> None:
    bench, store = Bench(long_prompts(6)), MemoryStore()
    assert bench.run(store) is WorkerExit.DONE
    assert_whole(bench, store)
    assert done_shards(store, RUN) == {"000000"}
    (status,) = read_statuses(store, RUN)
    assert (status.state, status.exit_code) == (NodeState.ENDED, 0)
    assert (status.rows_finished, status.output_tokens) == (6, 1200)
    assert status.course.turns[-1].state is NodeState.ENDED
    assert status.course.samples[-1][1:] == (1200, 6, 0)


def test_a_finished_run_is_left_alone() -> None:
    bench, store = Bench(long_prompts(2)), MemoryStore()
    bench.run(store)
    generated = bench.num_generated
    assert bench.run(store) is WorkerExit.DONE
    assert bench.num_generated == generated


async def _drain_when(bench: Bench, store: Store, tokens: int) -> WorkerExit:
    worker = bench.worker(store)
    running = asyncio.create_task(worker.run())
    while bench.num_generated < tokens:
        await asyncio.sleep(0)
    worker.told_to_leave("test")
    return await running


def test_a_drain_generates_nothing_twice() -> None:
    bench, store = Bench(long_prompts(6)), MemoryStore()
    drains = 0
    for tokens in range(100, 1200, 100):
        drains += asyncio.run(_drain_when(bench, store, tokens)) is WorkerExit.DRAINED
    assert drains >= 8
    bench.run(store)
    assert_whole(bench, store)
    assert bench.num_generated == 1200
    assert EventKind.SHARD_RESUMED in kinds(store)


def test_a_drain_of_many_shards_counts_every_token() -> None:
    prompts = {f"{n:06d}": [Prompt(n, f"row-{n}", LONG, token_ids=(n, 7))] for n in range(8)}
    slow = replace(SETTINGS, checkpoint_interval_s=60.0, checkpoint_tokens=10**6)
    bench = Bench(prompts, slow, lambda: FakeEngine(max_concurrency=8, tokens_per_s=100))
    store = MemoryStore()
    assert asyncio.run(_drain_when(bench, store, 100)) is WorkerExit.DRAINED
    (status,) = read_statuses(store, RUN)
    saved = sum(len(generation.token_ids) for generation in bench.generations(store).values())
    assert (status.output_tokens, status.unsaved_tokens) == (saved, 0)
    assert saved == bench.num_generated


def test_a_worker_that_is_told_to_leave_while_its_engine_starts_leaves() -> None:
    async def never() -> FakeEngine:
        await asyncio.Event().wait()
        raise AssertionError

    async def main() -> WorkerExit:
        worker = Bench(long_prompts(1)).worker(MemoryStore())
        worker.room.start_engine = never
        running = asyncio.create_task(worker.run())
        await asyncio.sleep(0)
        worker.told_to_leave("test")
        return await running

    assert asyncio.run(main()) is WorkerExit.DRAINED


def test_a_cancelled_run_drains_its_workers() -> None:
    bench, store = Bench(long_prompts(6)), MemoryStore()
    cancel(store, RUN)
    bench.make_engine = lambda: FakeEngine(tokens_per_s=50.0)
    assert bench.run(store) is WorkerExit.DRAINED
    assert not done_shards(store, RUN)


def test_an_engine_that_dies_costs_no_token() -> None:
    bench, store = Bench(long_prompts(6)), MemoryStore()
    faults = iter([FakeFaults(dies_after_tokens=300), FakeFaults(dies_after_tokens=200)])
    bench.make_engine = lambda: FakeEngine(max_concurrency=4, faults=next(faults, FakeFaults()))
    assert bench.run(store) is WorkerExit.DONE
    assert_whole(bench, store)
    assert bench.num_generated == 1200
    assert kinds(store).count(EventKind.ENGINE_DIED) == 2


def test_a_prompt_that_kills_engines_is_isolated_and_the_rest_finishes() -> None:
    prompts = long_prompts(9)
    faults = FakeFaults(deadly_prompts=frozenset({(5, 7)}))
    bench = Bench(prompts, make_engine=lambda: FakeEngine(max_concurrency=8, faults=faults))
    store = MemoryStore()
    assert bench.run(store) is WorkerExit.DONE
    assert_whole(bench, store, but={5})
    finish = bench.generations(store)[5, 0].finish
    assert finish is not None
    assert finish.error is not None
    assert finish.error.code is RowErrorCode.ENGINE_KILLED
    assert len(bench.engines) <= 8
    assert kinds(store).count(EventKind.PROMPT_ISOLATED) == 1


def test_a_prompt_that_takes_its_worker_along_is_isolated_too() -> None:
    """Whole processes died with it in flight; only their last heartbeats can name the suspect."""
    store = MemoryStore()
    observer = LeaseObserver(store, RUN, 0.0, lambda: 0.0)
    for owner in ("killed-1", "killed-2"):
        lease = observer.acquire("000000", owner)
        assert lease is not None
        lease.renew(in_flight=(5,))
    faults = FakeFaults(deadly_prompts=frozenset({(5, 7)}))
    bench = Bench(long_prompts(9), make_engine=lambda: FakeEngine(max_concurrency=8, faults=faults))
    assert bench.run(store) is WorkerExit.DONE
    assert_whole(bench, store, but={5})
    assert len(bench.engines) == 2  # it ran alone first, and died once more


def test_a_refused_prompt_becomes_an_error_row() -> None:
    faults = FakeFaults(refused_prompts=frozenset({(1, 7)}))
    bench = Bench(long_prompts(3), make_engine=lambda: FakeEngine(faults=faults))
    store = MemoryStore()
    assert bench.run(store) is WorkerExit.DONE
    assert_whole(bench, store, but={1})
    finish = bench.generations(store)[1, 0].finish
    assert finish is not None
    assert finish.error is not None
    assert finish.error.code is RowErrorCode.ENGINE_REFUSED


def test_a_prompt_that_preflight_refused_is_never_run() -> None:
    error = RowError(RowErrorCode.EMPTY_PROMPT, "empty")
    prompts = [replace(prompt, error=error) for prompt in long_prompts(2)["000000"]]
    bench, store = Bench({"000000": prompts}), MemoryStore()
    assert bench.run(store) is WorkerExit.DONE
    assert bench.num_generated == 0
    assert done_shards(store, RUN) == {"000000"}


def test_a_stalled_worker_finds_itself_fenced_and_its_late_writes_do_not_count() -> None:
    """The first owner stops as by SIGSTOP, the second takes over and finishes, the first wakes."""
    awake = threading.Event()
    awake.set()

    def wait_while_stopped(_call: Call) -> None:
        awake.wait()

    async def main() -> tuple[WorkerExit, WorkerExit]:
        first = bench.worker(FaultyStore(store, wait_while_stopped), term_s=60.0, node_id="first")
        stopped = asyncio.create_task(first.run())
        while bench.num_generated < 100:
            await asyncio.sleep(0)
        awake.clear()
        running = asyncio.create_task(bench.worker(store, node_id="second").run())
        while len(bench.engines) < 2 or bench.engines[1].num_generated < 100:
            await asyncio.sleep(0)
        awake.set()
        code = await stopped
        return code, await running

    bench, store = Bench(long_prompts(4)), MemoryStore()
    bench.make_engine = lambda: FakeEngine(tokens_per_s=2000.0)
    assert asyncio.run(main()) == (WorkerExit.DONE, WorkerExit.DONE)
    assert_whole(bench, store)
    assert EventKind.FENCED in kinds(store)


def test_a_fast_worker_takes_more_shards_than_a_slow_one() -> None:
    async def main() -> list[WorkerExit]:
        workers = [bench.worker(store, term_s=60.0, node_id=name) for name in ("fast", "slow")]
        return list(await asyncio.gather(*(worker.run() for worker in workers)))

    bench, store = Bench(dataset(12, 3)), MemoryStore()
    speeds = iter([1e5, 1e3])
    bench.make_engine = lambda: FakeEngine(max_concurrency=2, tokens_per_s=next(speeds))
    assert asyncio.run(main()) == [WorkerExit.DONE, WorkerExit.DONE]
    fast, slow = (engine.num_generated for engine in bench.engines)
    assert fast > 2 * slow > 0


class CountingEngine(FakeEngine):
    """Counts how often its generations are read."""

    reads = 0

    def progress(self, since: Mapping[str, int] | None = None) -> Mapping[str, Generation]:
        self.reads += 1
        return super().progress(since)


def run_with(bench: Bench, store: Store, start: Callable[[Worker], Awaitable[None]]) -> WorkerExit:
    """Run a worker whose engine is up once `start` returns."""

    async def main() -> WorkerExit:
        worker = bench.worker(store)

        async def start_engine() -> FakeEngine:
            await start(worker)
            bench.engines.append(bench.make_engine())
            return bench.engines[-1]

        worker.room.start_engine = start_engine
        return await worker.run()

    return asyncio.run(main())


def test_the_first_requests_wait_when_the_engine_is_up() -> None:
    """The shard is won and opened while the engine starts, and its lease renewed."""
    renewed: list[str] = []

    def see(call: Call) -> None:
        if call.key.endswith(".heartbeat"):
            renewed.append(call.key)

    async def start(worker: Worker) -> None:
        while worker.admission.num_waiting < 6 or len(renewed) < 2:
            await asyncio.sleep(0)

    bench, store = Bench(long_prompts(6)), MemoryStore()
    assert run_with(bench, FaultyStore(store, see), start) is WorkerExit.DONE
    assert_whole(bench, store)


def test_an_engine_that_starts_for_ages_keeps_the_last_shard_from_nobody() -> None:
    given_back = False

    async def start(worker: Worker) -> None:
        nonlocal given_back
        while not worker.desk.shards:
            await asyncio.sleep(0)
        while worker.desk.shards or worker.admission.num_waiting:
            await asyncio.sleep(0)
        # The word that it is given back may still be on its way; the term never lapses here.
        observer = LeaseObserver(store, RUN, 60.0, lambda: 0.0)
        while (lease := observer.acquire("000000", "idle")) is None:
            await asyncio.sleep(0.01)
        given_back = True
        lease.release()

    bench, store = Bench(long_prompts(6)), MemoryStore()
    assert run_with(bench, store, start) is WorkerExit.DONE
    assert given_back
    assert_whole(bench, store)


def test_an_engine_that_does_not_start_leaves_no_shard_behind() -> None:
    async def start(worker: Worker) -> None:
        while not worker.desk.shards:
            await asyncio.sleep(0)
        raise EngineDied("test")

    bench, store = Bench(long_prompts(6)), MemoryStore()
    with pytest.raises(EngineDied):
        run_with(bench, store, start)
    assert _free(store, "000000") is not None


def test_a_drain_does_not_wait_for_a_shard_that_is_being_taken() -> None:
    """The store hangs as the second shard is opened; the first is saved and free meanwhile."""
    won: list[str] = []
    hangs, goes_on = threading.Event(), threading.Event()

    class HangingStore(MemoryStore):
        def put_if_absent(self, key: str, data: bytes) -> bool:
            if "/leases/" in key:
                won.append(next(shard_id for shard_id in bench.dataset if f"/{shard_id}/" in key))
                if len(won) == 2:
                    hangs.set()
                    goes_on.wait(60)
            return super().put_if_absent(key, data)

    async def main() -> WorkerExit:
        worker = bench.worker(store, term_s=60.0)
        running = asyncio.create_task(worker.run())
        while not hangs.is_set() or bench.num_generated < 100:
            await asyncio.sleep(0)
        worker.told_to_leave("test")
        async with asyncio.timeout(30):
            while _free(store, won[0]) is None:
                await asyncio.sleep(0.001)
        goes_on.set()
        return await running

    prompts = {f"{n:06d}": long_prompts(3)["000000"] for n in range(2)}
    bench, store = Bench(prompts), HangingStore()
    assert asyncio.run(main()) is WorkerExit.DRAINED
    assert _free(store, won[1]) is not None
    assert len(bench.generations(store)) == 3


def _free(store: Store, shard_id: str) -> Lease | None:
    return LeaseObserver(store, RUN, 60.0, lambda: 0.0).acquire(shard_id, "next")


def test_the_last_row_is_saved_when_it_ends_and_not_at_a_tick() -> None:
    never = replace(SETTINGS, flush_tick_s=3600.0, checkpoint_interval_s=3600.0)
    prompts = {f"{n:06d}": [Prompt(n, f"row-{n}", LONG, token_ids=(n, 7))] for n in range(3)}
    bench, store = Bench(prompts, never), MemoryStore()
    assert bench.run(store) is WorkerExit.DONE
    assert_whole(bench, store)


def test_generations_are_read_when_a_segment_is_due_and_never_for_a_heartbeat() -> None:
    rarely = replace(SETTINGS, checkpoint_interval_s=3600.0, status_interval_s=0.001)
    engines: list[CountingEngine] = []

    def make_engine() -> CountingEngine:
        engines.append(CountingEngine(max_concurrency=4))
        return engines[-1]

    bench, store = Bench(long_prompts(6), rarely, make_engine), FaultyStore(MemoryStore())
    assert bench.run(store) is WorkerExit.DONE
    assert store.traffic.calls["put"] > 4  # heartbeats of the node
    assert engines[0].reads == 1


@pytest.mark.parametrize(
    ("num_workers", "num_shards", "held"), [(1, 6, 2), (4, 6, 1), (4, 64, 2), (None, 64, 1)]
)
def test_nobody_takes_the_share_of_others_ahead(
    num_workers: int | None, num_shards: int, held: int
) -> None:
    """With one prompt in the engine and the rest of its shard waiting, a second shard is opened
    only where there is enough for all."""
    most = 0

    async def main() -> None:
        nonlocal most
        worker = bench.worker(MemoryStore())
        running = asyncio.create_task(worker.run())
        # The next shard is opened beside serving, by a thread that may come late.
        while worker.tally.rows_finished < 3 or (most < held and not running.done()):
            most = max(most, len(worker.desk.shards))
            await asyncio.sleep(0)
        worker.told_to_leave("test")
        await running

    settings = replace(SETTINGS, num_workers=num_workers, checkpoint_interval_s=3600.0)
    prompts = {f"{n:06d}": long_prompts(5)["000000"] for n in range(num_shards)}  # as good as any
    bench = Bench(prompts, settings, lambda: FakeEngine(max_concurrency=1))
    asyncio.run(main())
    assert most == held
