"""A worker under test: the real loop and store protocol, with the fake engine."""

import asyncio
import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from shunt.checkpoint.generation import Generation
from shunt.checkpoint.lease import Lease, LeaseObserver
from shunt.checkpoint.progress import replay
from shunt.dataset.prompt import Prompt
from shunt.fleet.worker_exit import WorkerExit
from shunt.job.sampling import Sampling
from shunt.store.protocol import Store
from workers.assembly import assemble
from workers.engine.fake import FakeEngine
from workers.settings import WorkerSettings
from workers.shards.cadence import Cadence
from workers.shards.opening import OpenedShard, hold_shard
from workers.shards.supply import ShardSupply
from workers.worker import Worker

RUN = "run"
SETTINGS = WorkerSettings(
    run_id=RUN,
    node_id="node",
    checkpoint_interval_s=0.0,
    checkpoint_tokens=1,
    lease_term_s=0.05,
    max_deaths=2,
    flush_tick_s=0.002,
    status_interval_s=0.02,
    idle_poll_s=0.005,
)

Dataset = Mapping[str, Sequence[Prompt]]


def dataset(num_shards: int, prompts_per_shard: int, *, max_tokens: int = 12) -> Dataset:
    """Prompts of different lengths, greedy and seeded, some with two choices."""
    shards: dict[str, list[Prompt]] = {}
    for index in range(num_shards * prompts_per_shard):
        sampling = Sampling(
            max_tokens=1 + index * 7 % max_tokens,
            temperature=1.0 if index % 3 == 0 else 0.0,
            n=2 if index % 4 == 0 else 1,
        )
        shard_id = f"{index // prompts_per_shard:06d}"
        prompt = Prompt(index, f"row-{index}", sampling, token_ids=(index, index + 1))
        shards.setdefault(shard_id, []).append(prompt)
    return shards


@dataclass(slots=True)
class Bench:
    """Makes workers over one dataset; counts what their engines generate."""

    dataset: Dataset
    settings: WorkerSettings = SETTINGS
    make_engine: Callable[[], FakeEngine] = lambda: FakeEngine(max_concurrency=4)
    engines: list[FakeEngine] = field(default_factory=list[FakeEngine])
    _owners: "itertools.count[int]" = field(default_factory=itertools.count)

    @property
    def num_generated(self) -> int:
        return sum(engine.num_generated for engine in self.engines)

    def worker(self, store: Store, *, term_s: float = 0.0, node_id: str = "node") -> Worker:
        """A worker to which, with a term of zero, every other owner looks dead."""
        loop_time = asyncio.get_event_loop().time
        observer = LeaseObserver(store, RUN, term_s, loop_time)
        owner = f"owner-{next(self._owners)}"
        return assemble(
            replace(self.settings, node_id=node_id),
            store,
            supply=ShardSupply(observer, list(self.dataset), owner, random.Random(0), True),
            open_shard=self._open,
            start_engine=self._engine,
            now=_now,
            monotonic=loop_time,
            pid=1,
        )

    def run(self, store: Store, *, term_s: float = 0.0) -> WorkerExit:
        async def main() -> WorkerExit:
            return await self.worker(store, term_s=term_s).run()

        return asyncio.run(main())

    def generations(self, store: Store) -> dict[tuple[int, int], Generation]:
        """What the log says of every prompt."""
        return {
            name: generation
            for shard_id in self.dataset
            for name, generation in replay(store, RUN, shard_id).generations.items()
        }

    def _open(self, lease: Lease, cadence: Cadence) -> OpenedShard:
        prompts = self.dataset[lease.shard_id]
        return hold_shard(lease, prompts, render=_token_ids, cadence=cadence)

    async def _engine(self) -> FakeEngine:
        self.engines.append(self.make_engine())
        return self.engines[-1]


def _token_ids(prompt: Prompt) -> tuple[int, ...]:
    assert prompt.token_ids is not None
    return prompt.token_ids


def _now() -> datetime:
    return datetime.now(UTC)
