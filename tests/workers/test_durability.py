"""The signature test: whatever fails at whatever moment, the rows are those of a quiet run."""

import math

import pytest

from shunt.checkpoint.generation import Generation
from shunt.errors import ShuntError
from shunt.fleet.worker_exit import WorkerExit
from shunt.store.protocol import Store
from shunt.testing.faulty_store import FaultyStore, When, fail_call
from shunt.testing.memory_store import MemoryStore
from tests.workers.bench import Bench, dataset

ATTEMPTS = 20


class Crash(BaseException):
    """The worker process is gone at once: nothing is flushed, nothing is released."""


def run_to_the_end(bench: Bench, store: Store) -> int:
    """Start workers, one after the other, until one says that the run is done: how many it took."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            if bench.run(store) is WorkerExit.DONE:
                return attempt
        except (Crash, ShuntError):
            continue
    pytest.fail(f"not done after {ATTEMPTS} workers")


def rows(bench: Bench, store: Store) -> dict[tuple[int, int], tuple[object, ...]]:
    """What a user sees of each generation."""
    return {name: _row(generation) for name, generation in bench.generations(store).items()}


def _row(generation: Generation) -> tuple[object, ...]:
    assert generation.finish is not None
    return generation.token_ids, generation.finish, generation.num_prompt_tokens


@pytest.fixture(scope="module")
def quiet() -> tuple[int, dict[tuple[int, int], tuple[object, ...]], int]:
    """An undisturbed run: its store calls, its rows, its generated tokens."""
    bench, store = Bench(dataset(2, 4)), FaultyStore(MemoryStore())
    assert run_to_the_end(bench, store) == 1
    return store.num_calls, rows(bench, store), bench.num_generated


def test_the_quiet_run_is_whole(
    quiet: tuple[int, dict[tuple[int, int], tuple[object, ...]], int],
) -> None:
    _, expected, generated = quiet
    assert set(expected) == {(i, c) for i in range(8) for c in range(2 if i % 4 == 0 else 1)}
    assert generated == sum(len(tokens) for tokens, _, _ in expected.values())  # type: ignore[arg-type]


@pytest.mark.parametrize("when", When)
@pytest.mark.parametrize("error", [None, Crash("killed")], ids=["error", "crash"])
def test_any_store_call_may_fail(
    when: When,
    error: BaseException | None,
    quiet: tuple[int, dict[tuple[int, int], tuple[object, ...]], int],
) -> None:
    """Call k fails before it happened, after it happened, or with its reply lost; for all k."""
    num_calls, expected, generated = quiet
    for number in range(math.ceil(num_calls * 1.2)):  # timing moves the count a little
        bench = Bench(dataset(2, 4))
        store = MemoryStore()
        workers = run_to_the_end(bench, FaultyStore(store, fail_call(number, when, error=error)))
        assert rows(bench, store) == expected, f"call {number} failing {when}"
        if workers == 1:
            assert bench.num_generated == generated, f"call {number} failing {when}"
