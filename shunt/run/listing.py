"""The runs of a store, one line each: for people who look for one."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from shunt.checkpoint.done import done_shards
from shunt.run.manifest import list_runs, read_manifest
from shunt.run.spend import read_spend
from shunt.run.status import RunState, state_of
from shunt.store.protocol import Store

_READERS = 8


@dataclass(frozen=True, slots=True)
class RunLine:
    """What a list of runs says of each."""

    run_id: str
    state: RunState
    rows_done: int
    """In shards that are done: what is in open ones is not looked up."""
    rows_total: int
    created_at: datetime
    usd: Decimal | None
    """None where no node cost money."""


def read_lines(store: Store) -> Iterator[RunLine]:
    """All runs of the store, by name. A few small reads for each."""

    def line(run_id: str) -> RunLine:
        manifest = read_manifest(store, run_id)
        done = done_shards(store, run_id)
        spend = read_spend(store, run_id)
        return RunLine(
            run_id=run_id,
            state=state_of(store, run_id, all_done=len(done) == len(manifest.shards)),
            rows_done=sum(s.num_prompts for s in manifest.shards if s.shard_id in done),
            rows_total=manifest.num_rows,
            created_at=manifest.created_at,
            usd=None if spend is None else spend.usd,
        )

    with ThreadPoolExecutor(_READERS) as pool:
        yield from pool.map(line, list_runs(store))
