"""Reuse: rows of a new run that take their answers from another row, and so need no engine.

Of an earlier finished run of the same store and name, where a row of it has the same key; or of the
first row of that key in the dataset itself. What is looked up is settled once per run, so that
whoever prepares it again prepares the same.
"""

# Numpy's stubs leave array types open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from shunt import keys
from shunt.dataset.answer_key import ROW_KEY, AnswerKeys, KeyKind
from shunt.dataset.shard import BESIDE
from shunt.run.known_answers import (
    KNOWN_KEY,
    KnownRun,
    bucket_of,
    fetch_known,
    finished_runs,
    write_part,
)
from shunt.store.errors import ObjectMissing
from shunt.store.protocol import Store

PART_ROWS = 1 << 18
"""About so many rows are looked up at once, and stand in one part of a run's keys."""
REFERENCE = np.dtype([("run", "<i4"), ("index", "<i8")])
"""Whose answer a row takes: run -1 nobody's, 0 of this run, k of the k-th run that is reused."""
_NOBODY = -1
_APART = np.uint64(0x9E3779B97F4A7C15)
"""An odd number (2^64 over the golden ratio), whose multiples differ in all bits."""
_KEPT_BITS = np.uint64(16)
"""Of the top of a key: they say which part it is in, and do not change."""


class ReuseRecord(BaseModel):
    """What decides which rows are reused, as it was when the run was first prepared: two that
    prepare one run, at once or one after a crash of the other, have to find the same."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1] = 1
    run_ids: tuple[str, ...]
    """The finished runs that are looked into."""
    day: str = ""
    """What the chat template was told of the time; empty where it does not ask."""


def read_reuse(store: Store, run_id: str) -> ReuseRecord | None:
    """What was settled; None where nothing is yet. Raises `StoreError`."""
    try:
        return ReuseRecord.model_validate_json(store.get(keys.reuse(run_id)))
    except ObjectMissing:
        return None


def settle_reuse(store: Store, name: str, run_id: str, day: str) -> ReuseRecord:
    """The record that stands, ours if there was none. Raises `StoreError`."""
    standing = read_reuse(store, run_id)
    if standing is None:
        ours = ReuseRecord(run_ids=tuple(finished_runs(store, name)), day=day)
        if store.put_if_absent(keys.reuse(run_id), ours.model_dump_json().encode()):
            return ours
        standing = read_reuse(store, run_id)
        assert standing is not None  # objects of a run are never deleted
    return standing


class KeySpool:
    """The keys of all rows, in a file: written while rows are read, mapped afterwards."""

    def __init__(self, keys_of: AnswerKeys, path: Path) -> None:
        self._keys_of = keys_of
        self._path = path

    def add(self, table: pa.Table) -> None:
        """The rows of the next shard."""
        with self._path.open("ab") as file:
            file.write(self._keys_of.of(table).tobytes())

    def mapped(self, refused: Collection[int]) -> npt.NDArray[Any]:
        """`ROW_KEY` of all rows; those that were refused since have none."""
        mapped = np.memmap(self._path, ROW_KEY, mode="r+")
        if refused:
            mapped["kind"][np.fromiter(refused, np.int64)] = KeyKind.NONE
        return mapped


@dataclass(frozen=True, slots=True)
class Reuse:
    """Which rows of a run take the answers of others, and the keys of those that do not."""

    references: npt.NDArray[Any]
    """`REFERENCE` of each row."""
    runs: tuple[str, ...]
    """The runs that references name, from 1."""
    parts: dict[int, Path]
    """Keys of the rows that this run generates itself, for others to find."""
    num_parts: int
    num_rows: int
    """Rows that take the answer of another."""

    def mark(self, table: pa.Table, first_index: int) -> pa.Table:
        """The shard with the columns that say whose answers its rows take; as it is, where none
        takes another's."""
        found = self.references[first_index : first_index + table.num_rows]
        nobodys = found["run"] == _NOBODY
        if nobodys.all():
            return table
        for name in ("run", "index"):
            column = pa.array(found[name], mask=np.asarray(nobodys))
            table = table.append_column(BESIDE.field(f"from_{name}"), column)
        return table


def find_reuse(
    row_keys: npt.NDArray[Any],
    backend: str,
    store: Store,
    name: str,
    run_ids: Sequence[str],
    directory: Path,
) -> Reuse:
    """Look up all rows of a run in the answers of these runs. `backend`: the grammar back end that
    was settled. Files are made in `directory`, which must outlive the answer."""
    known = fetch_known(store, name, run_ids, directory / "known")
    search = _Search(row_keys, backend, known, directory)
    for bucket in range(search.num_buckets):
        search.look_into(bucket)
    return search.found()


@dataclass(slots=True)
class _Search:
    row_keys: npt.NDArray[Any]
    backend: str
    known: Sequence[KnownRun]
    directory: Path
    num_buckets: int = 1
    num_reused: int = 0
    parts: dict[int, Path] = field(default_factory=dict[int, Path])
    references: Any = None

    def __post_init__(self) -> None:
        count = len(self.row_keys)
        while self.num_buckets * PART_ROWS < count:
            self.num_buckets *= 2
        self.references = np.memmap(
            self.directory / "references", REFERENCE, mode="w+", shape=(count,)
        )
        self.references["run"] = _NOBODY

    def look_into(self, bucket: int) -> None:
        """Settle the rows of one bucket."""
        rows = np.concatenate([np.empty(0, np.int64), *self._rows_of(bucket)])
        if not len(rows):
            return
        wanted, leaders = self._told_apart(rows)
        led = leaders >= 0
        self._refer(rows[led], 0, leaders[led])
        rows, wanted = rows[~led], wanted[~led]
        for number, run in enumerate(self.known, start=1):
            found = run.find(wanted, bucket, self.num_buckets)
            there = found >= 0
            self._refer(rows[there], number, found[there])
            rows, wanted = rows[~there], wanted[~there]
        if len(rows):
            wanted["index"] = rows
            self.parts[bucket] = self.directory / f"keys-{bucket}"
            write_part(wanted, self.parts[bucket])

    def found(self) -> Reuse:
        """The answer: runs of which nothing is taken are left out, and rows whose leader takes a
        known answer take it, too."""
        for first in range(0, len(self.references), PART_ROWS):
            part = self.references[first : first + PART_ROWS]
            led = part["run"] == 0
            theirs = self.references[part["index"][led]]
            known = theirs["run"] > 0
            part[np.flatnonzero(led)[known]] = theirs[known]
        used = sorted({int(run) for run in np.unique(self.references["run"]) if run > 0})
        renumbered = np.arange(-1, len(self.known) + 1, dtype=np.int32)
        renumbered[np.array(used, np.int64) + 1] = np.arange(1, len(used) + 1)
        self.references["run"] = renumbered[self.references["run"] + 1]
        return Reuse(
            self.references,
            tuple(self.known[number - 1].run_id for number in used),
            self.parts,
            self.num_buckets,
            self.num_reused,
        )

    def _refer(self, rows: npt.NDArray[Any], run: int, indexes: npt.NDArray[Any]) -> None:
        self.references["run"][rows] = run
        self.references["index"][rows] = indexes
        self.num_reused += len(rows)

    def _rows_of(self, bucket: int) -> Iterator[npt.NDArray[Any]]:
        for first in range(0, len(self.row_keys), PART_ROWS):
            part = self.row_keys[first : first + PART_ROWS]
            ours = bucket_of(part["high"], self.num_buckets) == bucket
            yield first + np.flatnonzero(ours & (part["kind"] != KeyKind.NONE))

    def _told_apart(self, rows: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """(`KNOWN_KEY`s of these rows, in order of rows; for each the first row whose answer it
        takes, or -1)."""
        given = self.row_keys[rows]
        wanted = np.zeros(len(rows), KNOWN_KEY)
        wanted["high"], wanted["low"] = given["high"], given["low"]
        structured = (given["kind"] & KeyKind.STRUCTURED) != 0
        wanted["low"][structured] ^= _number_of(self.backend)
        order = np.lexsort((rows, wanted["low"], wanted["high"]))
        ordered = wanted[order]
        repeats = np.zeros(len(rows), bool)
        repeats[1:] = (ordered["high"][1:] == ordered["high"][:-1]) & (
            ordered["low"][1:] == ordered["low"][:-1]
        )
        places = np.arange(len(rows))
        starts = np.maximum.accumulate(np.where(repeats, 0, places))
        numbers, leaders = np.empty(len(rows), np.uint64), np.empty(len(rows), np.int64)
        numbers[order] = (places - starts).astype(np.uint64)
        leaders[order] = np.where(repeats, rows[order][starts], _NOBODY)
        apart = (given["kind"] & KeyKind.APART) != 0
        leaders[apart] = _NOBODY
        with np.errstate(over="ignore"):
            wanted["high"][apart] ^= (numbers[apart] * _APART) >> _KEPT_BITS
        return wanted, leaders


def _number_of(text: str) -> np.uint64:
    return np.uint64(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big"))
