"""Done markers: a hint that saves every reader the replay of finished shards. The log decides."""

from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from pydantic import BaseModel, ConfigDict

from shunt import keys
from shunt.store.protocol import Store

_FETCH_THREADS = 16


class ShardDone(BaseModel):
    """What the owner counted when its shard was complete."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1] = 1
    shard_id: str
    epoch: int
    num_rows: int
    num_error_rows: int
    num_output_tokens: int
    num_segments: int


def mark_done(store: Store, run_id: str, done: ShardDone) -> None:
    """Idempotent: the first marker of a shard stays, and any of them is as good."""
    store.put_if_absent(keys.done(run_id, done.shard_id), done.model_dump_json().encode())


def done_shards(store: Store, run_id: str) -> set[str]:
    """Ids of the shards that are marked, by one listing."""
    prefix = keys.done_prefix(run_id)
    return {key.removeprefix(prefix).removesuffix(".json") for key in store.list(prefix)}


def read_done(store: Store, run_id: str, *, into: dict[str, ShardDone]) -> None:
    """Add the markers that `into` does not have yet, by shard id: they never change."""
    missing = sorted(done_shards(store, run_id) - into.keys())

    def read(shard_id: str) -> ShardDone:
        return ShardDone.model_validate_json(store.get(keys.done(run_id, shard_id)))

    with ThreadPoolExecutor(_FETCH_THREADS) as pool:
        into |= zip(missing, pool.map(read, missing), strict=True)
