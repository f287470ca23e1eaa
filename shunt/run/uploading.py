"""From spooled shards to objects of the run: created if absent, a few at a time."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import pyarrow as pa

from shunt import keys
from shunt.checkpoint.done import ShardDone, mark_done
from shunt.dataset.shard import encode_shard, num_error_rows, num_reused_rows, read_shard_table
from shunt.run.manifest import ShardEntry
from shunt.store.protocol import Store

_THREADS = 8

Mark = Callable[[pa.Table, int], pa.Table]
"""A shard's table and the index of its first row, to the table with what more there is to say."""


def upload_shards(
    store: Store,
    run_id: str,
    entries: Sequence[ShardEntry],
    spool: Path,
    mark: Mark | None,
) -> tuple[ShardEntry, ...]:
    """Create the shard objects that are not there yet, of the files of their names in `spool`, and
    the done markers of shards that need no engine. Returns the entries as they are now."""

    def create(entry: ShardEntry) -> ShardEntry:
        data = (spool / entry.shard_id).read_bytes()
        if mark is not None:
            entry, data = _marked(entry, data, mark)
        store.put_if_absent(keys.shard_prompts(run_id, entry.shard_id), data)
        if entry.num_reused_rows and entry.needs_no_engine:
            mark_done(store, run_id, _done(entry))
        return entry

    made: list[ShardEntry] = []
    left = iter(entries)
    with ThreadPoolExecutor(_THREADS) as pool:
        while window := list(islice(left, 4 * _THREADS)):
            made += pool.map(create, window)
    return tuple(made)


def _marked(entry: ShardEntry, data: bytes, mark: Mark) -> tuple[ShardEntry, bytes]:
    table = read_shard_table(data)
    marked = mark(table, entry.first_index)
    if marked is table:
        return entry, data
    counts = {"num_error_rows": num_error_rows(marked), "num_reused_rows": num_reused_rows(marked)}
    return entry.model_copy(update=counts), encode_shard(marked)


def _done(entry: ShardEntry) -> ShardDone:
    """No worker ever held it: epoch 0."""
    return ShardDone(
        shard_id=entry.shard_id,
        epoch=0,
        num_rows=entry.num_prompts,
        num_error_rows=entry.num_error_rows,
        num_output_tokens=0,
        num_segments=0,
    )
