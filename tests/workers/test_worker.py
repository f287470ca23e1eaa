"""The worker loop with the fake engine: drains, deaths, fencing, refusals, exit codes."""

import asyncio
import threading
from collections.abc import Set as AbstractSet
from dataclasses import replace

from shunt.checkpoint.done import done_shards
from shunt.checkpoint.lease import LeaseObserver
from shunt.checkpoint.request import Request
from shunt.dataset.prompt import Prompt
from shunt.dataset.row_error import RowError, RowErrorCode
from shunt.job.sampling import Sampling
from shunt.run.cancellation import cancel
from shunt.run.event import Event, EventKind, read_events
from shunt.run.node_status import NodeState, read_statuses
from shunt.store.protocol import Store
from shunt.testing.faulty_store import Call, FaultyStore
from shunt.testing.memory_store import MemoryStore
from tests.workers.bench import RUN, SETTINGS, Bench, Dataset, dataset
from workers.engine.fake import FakeEngine, FakeFaults, expected_generation
from workers.settings import ExitCode

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
    assert bench.run(store) is ExitCode.DONE
    assert_whole(bench, store)
    assert done_shards(store, RUN) == {"000000"}
    (status,) = read_statuses(store, RUN)
    assert (status.state, status.exit_code) == (NodeState.ENDED, 0)
    assert (status.rows_finished, status.output_tokens) == (6, 1200)


def test_a_finished_run_is_left_alone() -> None:
    bench, store = Bench(long_prompts(2)), MemoryStore()
    bench.run(store)
    generated = bench.num_generated
    assert bench.run(store) is ExitCode.DONE
    assert bench.num_generated == generated


async def _drain_when(bench: Bench, store: Store, tokens: int) -> ExitCode:
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
        drains += asyncio.run(_drain_when(bench, store, tokens)) is ExitCode.DRAINED
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
    assert asyncio.run(_drain_when(bench, store, 100)) is ExitCode.DRAINED
    (status,) = read_statuses(store, RUN)
    saved = sum(len(generation.token_ids) for generation in bench.generations(store).values())
    assert (status.output_tokens, status.unsaved_tokens) == (saved, 0)
    assert saved == bench.num_generated


def test_a_worker_that_is_told_to_leave_while_its_engine_starts_leaves() -> None:
    async def never() -> FakeEngine:
        await asyncio.Event().wait()
        raise AssertionError

    async def main() -> ExitCode:
        worker = Bench(long_prompts(1)).worker(MemoryStore())
        worker.room.start_engine = never
        running = asyncio.create_task(worker.run())
        await asyncio.sleep(0)
        worker.told_to_leave("test")
        return await running

    assert asyncio.run(main()) is ExitCode.DRAINED


def test_a_cancelled_run_drains_its_workers() -> None:
    bench, store = Bench(long_prompts(6)), MemoryStore()
    cancel(store, RUN)
    bench.make_engine = lambda: FakeEngine(tokens_per_s=50.0)
    assert bench.run(store) is ExitCode.DRAINED
    assert not done_shards(store, RUN)


def test_an_engine_that_dies_costs_no_token() -> None:
    bench, store = Bench(long_prompts(6)), MemoryStore()
    faults = iter([FakeFaults(dies_after_tokens=300), FakeFaults(dies_after_tokens=200)])
    bench.make_engine = lambda: FakeEngine(max_concurrency=4, faults=next(faults, FakeFaults()))
    assert bench.run(store) is ExitCode.DONE
    assert_whole(bench, store)
    assert bench.num_generated == 1200
    assert kinds(store).count(EventKind.ENGINE_DIED) == 2


def test_a_prompt_that_kills_engines_is_isolated_and_the_rest_finishes() -> None:
    prompts = long_prompts(9)
    faults = FakeFaults(deadly_prompts=frozenset({(5, 7)}))
    bench = Bench(prompts, make_engine=lambda: FakeEngine(max_concurrency=8, faults=faults))
    store = MemoryStore()
    assert bench.run(store) is ExitCode.DONE
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
    assert bench.run(store) is ExitCode.DONE
    assert_whole(bench, store, but={5})
    assert len(bench.engines) == 2  # it ran alone first, and died once more


def test_a_refused_prompt_becomes_an_error_row() -> None:
    faults = FakeFaults(refused_prompts=frozenset({(1, 7)}))
    bench = Bench(long_prompts(3), make_engine=lambda: FakeEngine(faults=faults))
    store = MemoryStore()
    assert bench.run(store) is ExitCode.DONE
    assert_whole(bench, store, but={1})
    finish = bench.generations(store)[1, 0].finish
    assert finish is not None
    assert finish.error is not None
    assert finish.error.code is RowErrorCode.ENGINE_REFUSED


def test_a_prompt_that_preflight_refused_is_never_run() -> None:
    error = RowError(RowErrorCode.EMPTY_PROMPT, "empty")
    prompts = [replace(prompt, error=error) for prompt in long_prompts(2)["000000"]]
    bench, store = Bench({"000000": prompts}), MemoryStore()
    assert bench.run(store) is ExitCode.DONE
    assert bench.num_generated == 0
    assert done_shards(store, RUN) == {"000000"}


def test_a_stalled_worker_finds_itself_fenced_and_its_late_writes_do_not_count() -> None:
    """The first owner stops as by SIGSTOP, the second takes over and finishes, the first wakes."""
    awake = threading.Event()
    awake.set()

    def wait_while_stopped(_call: Call) -> None:
        awake.wait()

    async def main() -> tuple[ExitCode, ExitCode]:
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
    assert asyncio.run(main()) == (ExitCode.FENCED, ExitCode.DONE)
    assert_whole(bench, store)
    assert EventKind.FENCED in kinds(store)


def test_a_fast_worker_takes_more_shards_than_a_slow_one() -> None:
    async def main() -> list[ExitCode]:
        workers = [bench.worker(store, term_s=60.0, node_id=name) for name in ("fast", "slow")]
        return list(await asyncio.gather(*(worker.run() for worker in workers)))

    bench, store = Bench(dataset(12, 3)), MemoryStore()
    speeds = iter([1e5, 1e3])
    bench.make_engine = lambda: FakeEngine(max_concurrency=2, tokens_per_s=next(speeds))
    assert asyncio.run(main()) == [ExitCode.DONE, ExitCode.DONE]
    fast, slow = (engine.num_generated for engine in bench.engines)
    assert fast > 2 * slow > 0
