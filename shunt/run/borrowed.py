"""Borrowed answers: those that rows of a run take from other rows, gathered when it is collected.

Every shard that is borrowed from is read once, whatever the order of the rows that take from it;
what they take waits on this machine's disk, a file for each shard that takes. So memory stays at
one shard.
"""

# Numpy's and pyarrow's stubs leave types open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

import pickle
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shunt import keys
from shunt.checkpoint.generation import Generation
from shunt.checkpoint.progress import ShardProgress, replay
from shunt.dataset.shard import read_shard_table
from shunt.errors import RunIncomplete, RunMissing
from shunt.results.summary import read_summary
from shunt.run.manifest import Manifest, read_manifest
from shunt.store.protocol import Store

Cuts = Mapping[str, Mapping[int, int]]
_LOAN = np.dtype([("index", "<i8"), ("to", "<i8")])

_Answers = list[tuple[tuple[int, int], Generation]]


@dataclass(frozen=True, slots=True)
class Borrowed:
    """What the shards of a run borrow; for a run that borrows nothing, nothing."""

    directory: Path

    def added_to(self, progress: ShardProgress, shard_id: str) -> ShardProgress:
        """The progress with the answers that rows of the shard borrow, as if they were its own."""
        path = self.directory / shard_id
        if not path.exists():
            return progress
        generations = dict(progress.generations)
        with path.open("rb") as file:
            while part := _read(file):
                generations.update(part)
        return replace(progress, generations=generations)


def borrow(store: Store, manifest: Manifest, cuts: Cuts, directory: Path) -> Borrowed:
    """Gather what rows of the run take from others. `cuts`: of this run, perhaps not of all its
    shards; what is not there yet is left out.

    Raises `RunIncomplete` when a run that it takes from is no longer in the store.
    """
    if manifest.num_reused_rows:
        for number, loans in _loans(store, manifest):
            origin, theirs = _origin(store, manifest, number, cuts)
            _gather(store, origin, theirs, loans, manifest, directory)
    return Borrowed(directory)


def _loans(store: Store, manifest: Manifest) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """(number of the run that is borrowed from, `_LOAN`s from it, in order of its rows)."""
    parts: defaultdict[int, list[npt.NDArray[Any]]] = defaultdict(list)
    for entry in manifest.shards:
        if not entry.num_reused_rows:
            continue
        table = read_shard_table(store.get(keys.shard_prompts(manifest.run_id, entry.shard_id)))
        runs, indexes = references_of(table)
        for number in np.unique(runs[runs >= 0]):
            rows = np.flatnonzero(runs == number)
            loans = np.empty(len(rows), _LOAN)
            loans["index"], loans["to"] = indexes[rows], rows + entry.first_index
            parts[int(number)].append(loans)
    for number, found in parts.items():
        yield number, np.sort(np.concatenate(found), order="index")


def references_of(table: pa.Table) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """(number of the run, index there) of each row; run -1 where it takes nobody's answer."""
    if "from_run" not in table.column_names:
        return np.full(table.num_rows, -1), np.full(table.num_rows, -1)
    runs, indexes = (
        table.column(name).combine_chunks().fill_null(-1).to_numpy(zero_copy_only=False)
        for name in ("from_run", "from_index")
    )
    return runs, indexes


def reused_run(manifest: Manifest, number: int) -> str:
    """The id of the run that a shard names by this number."""
    return manifest.reused_runs[number - 1] if number else manifest.run_id


def _origin(store: Store, manifest: Manifest, number: int, cuts: Cuts) -> tuple[Manifest, Cuts]:
    if number == 0:
        return manifest, cuts
    run_id = reused_run(manifest, number)
    try:
        origin, summary = read_manifest(store, run_id), read_summary(store, run_id)
    except RunMissing:
        origin = summary = None
    if origin is None or summary is None:
        raise RunIncomplete(
            manifest.run_id,
            f"takes answers of run {run_id}, which is not in {store.uri} any more: put it back, or "
            "generate all rows in a new run with --no-reuse",
        )
    return origin, summary.cuts


def _gather(
    store: Store,
    origin: Manifest,
    cuts: Cuts,
    loans: npt.NDArray[Any],
    manifest: Manifest,
    directory: Path,
) -> None:
    """Append the answers to the files of the shards that take them."""
    firsts = [entry.first_index for entry in manifest.shards]
    for entry in origin.shards:
        begin, end = np.searchsorted(
            loans["index"], [entry.first_index, entry.first_index + entry.num_prompts]
        )
        if begin == end or entry.shard_id not in cuts:
            continue
        progress = replay(store, origin.run_id, entry.shard_id, cut=cuts[entry.shard_id])
        answers: defaultdict[int, list[tuple[int, Generation]]] = defaultdict(list)
        for (index, choice), generation in progress.generations.items():
            answers[index].append((choice, generation))
        taken: defaultdict[str, _Answers] = defaultdict(list)
        for index, to in loans[begin:end].tolist():
            shard_id = manifest.shards[bisect_right(firsts, to) - 1].shard_id
            taken[shard_id] += [((to, choice), made) for choice, made in answers.get(index, ())]
        for shard_id, found in taken.items():
            with (directory / shard_id).open("ab") as file:
                pickle.dump(found, file, pickle.HIGHEST_PROTOCOL)


def _read(file: Any) -> _Answers | None:
    """The next part of a file that `_gather` wrote, on this machine, a moment ago."""
    try:
        return pickle.load(file)
    except EOFError:
        return None
