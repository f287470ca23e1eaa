"""Rows without an answer, with the sentence that says why."""

from collections.abc import Iterator, Mapping
from itertools import islice

from shunt.checkpoint.done import ShardDone
from shunt.checkpoint.progress import replay
from shunt.dataset.shard import prompts_of
from shunt.report.report import BadRow
from shunt.run.borrowed import references_of
from shunt.run.collect import checked_outcome, origins, shard_table
from shunt.run.manifest import Manifest, ShardEntry
from shunt.store.protocol import Store

MOST_SHOWN = 200
"""A page with thousands of rows helps nobody; the result files have them all."""


def read_bad_rows(
    store: Store, manifest: Manifest, done: Mapping[str, ShardDone], *, most: int = MOST_SHOWN
) -> tuple[BadRow, ...]:
    """The first of them; see `bad_rows`."""
    return tuple(islice(bad_rows(store, manifest, done), most))


def bad_rows(store: Store, manifest: Manifest, done: Mapping[str, ShardDone]) -> Iterator[BadRow]:
    """All of them in the order of the input. Only shards that have some are read.

    Of a shard that is not done, those that preflight refused. Raises `CorruptSegment`.
    """
    generated: dict[int, BadRow] = {}
    """Equal rows share their fate, and the one that was generated comes first."""
    for entry in manifest.shards:
        for index, row in _of_shard(store, manifest, entry, done.get(entry.shard_id)):
            if manifest.num_reused_rows:
                generated[index] = row
            yield row
        if entry.num_reused_rows and generated:
            yield from _of_equals(store, manifest, entry, generated)


def _of_equals(
    store: Store, manifest: Manifest, entry: ShardEntry, generated: Mapping[int, BadRow]
) -> Iterator[BadRow]:
    table = shard_table(store, manifest, entry)
    ids = table.column("prompt_id").to_pylist()
    runs, indexes = references_of(table)
    rows = zip(ids, runs.tolist(), indexes.tolist(), origins(table, manifest), strict=True)
    for prompt_id, run, index, (file, line) in rows:
        if run == 0 and (bad := generated.get(index)) is not None:
            yield bad.model_copy(update={"row_id": prompt_id, "file": file, "line": line})


def _of_shard(
    store: Store, manifest: Manifest, entry: ShardEntry, done: ShardDone | None
) -> Iterator[tuple[int, BadRow]]:
    expected = entry.num_error_rows if done is None else done.num_error_rows
    if not expected:
        return
    table = shard_table(store, manifest, entry)
    prompts = prompts_of(table, defaults=manifest.settled_job.sampling)
    generated = expected > entry.num_error_rows
    progress = replay(store, manifest.run_id, entry.shard_id) if generated else None
    for prompt, (file, line) in zip(prompts, origins(table, manifest), strict=True):
        error = prompt.error
        if error is None and progress is not None:
            error = checked_outcome(prompt, progress, manifest).error
        if error is not None:
            yield (
                prompt.index,
                BadRow(
                    row_id=prompt.prompt_id,
                    code=error.code.value,
                    message=error.message,
                    file=file,
                    line=line,
                ),
            )
