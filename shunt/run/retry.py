"""Retry: a run of some rows of a finished run, whose results are those of both.

Its shards are those of the run that it follows. The rows that are chosen are read from the input
again, under the job as it is now; every other row takes its answer, or its error, from there.
"""

# Pyarrow's stubs leave type parameters open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shunt.dataset.row_error import RowErrorCode
from shunt.dataset.shard import (
    BESIDE,
    SCHEMA,
    encode_shard,
    num_error_rows,
    num_reused_rows,
    read_shard_table,
)
from shunt.errors import InputError, JobError, RunIncomplete
from shunt.job.job import Job
from shunt.results.outcome import Outcome, ShardOutcomes
from shunt.results.summary import read_summary
from shunt.run.borrowed import references_of
from shunt.run.collect import reading_outcomes
from shunt.run.input_pass import InputPass
from shunt.run.manifest import Follows, Manifest, ShardEntry
from shunt.run.run_id import Dataset
from shunt.store.protocol import Store

_NEVER = RowErrorCode.DUPLICATE_ID
"""Another row has the id: no setting mends that."""


@dataclass(frozen=True, slots=True)
class Where:
    """Which rows a retry generates again: those of which all that is given holds. With nothing
    given, those that ended as errors."""

    wanted: Mapping[str, frozenset[str]]
    """By what: `code` (of an error), `id`, `finish_reason`, `structure`."""

    @classmethod
    def of(cls, conditions: Sequence[str]) -> "Where":
        """Of texts like `code=context_length,engine_refused`. Raises `JobError`."""
        wanted: dict[str, frozenset[str]] = {}
        for condition in conditions:
            name, equals, values = condition.partition("=")
            if not equals or name not in _SAYS:
                known = ", ".join(f"{known}=..." for known in _SAYS)
                raise JobError(f"--where {condition}: is none of {known}")
            if name in wanted:
                raise JobError(f"--where {name}: is given twice; several values go by commas")
            wanted[name] = frozenset(value.strip() for value in values.split(","))
        return cls(wanted)

    def chooses(self, outcome: Outcome) -> bool:
        if outcome.error is not None and outcome.error.code is _NEVER:
            return False
        if not self.wanted:
            return outcome.error is not None
        return all(_SAYS[name](outcome) in values for name, values in self.wanted.items())


def _finish_reason(outcome: Outcome) -> str:
    if outcome.error is not None:
        return "error"
    finishes = {g.finish.finish_reason for g in outcome.generations if g.finish is not None}
    return "length" if "length" in finishes else next(iter(finishes), "")


_SAYS: Mapping[str, Callable[[Outcome], str]] = {
    "code": lambda outcome: "" if outcome.error is None else outcome.error.code.value,
    "id": lambda outcome: outcome.prompt_id,
    "finish_reason": _finish_reason,
    "structure": lambda outcome: "" if outcome.kept is None else outcome.kept.keeping.value,
}


@dataclass(slots=True)
class Retry:
    """The rows of a finished run, parted into those that are kept and those that are chosen."""

    origin: Manifest
    where: Where
    directory: Path
    """For the shards as they are kept."""
    chosen: npt.NDArray[Any] = field(default_factory=lambda: np.zeros(0, bool))
    """Of each row, whether it is generated again."""

    @property
    def follows(self) -> Follows:
        conditions = tuple(
            f"{name}={','.join(sorted(values))}"
            for name, values in sorted(self.where.wanted.items())
        )
        return Follows(run_id=self.origin.run_id, where=conditions)

    @property
    def reused_runs(self) -> tuple[str, ...]:
        """As the shards number them."""
        return (self.origin.run_id, *self.origin.reused_runs)

    def overruled(self, job: Job) -> set[str]:
        """Sampling parameters that this job has otherwise than the run: whoever retries rows with
        them means these rows, also those that said something themselves."""
        ours, theirs = (j.sampling.model_dump(by_alias=True) for j in (job, self.origin.job))
        return {name for name, value in ours.items() if value != theirs[name]}

    def require_same_rows(self, job: Job, dataset: Dataset) -> None:
        """Raises `JobError` where the job asks for other rows, `InputError` where the files hold
        others."""
        origin = self.origin
        for name, ours, theirs in (
            ("input", job.input, origin.job.input),
            ("shard_prompts", job.shard_prompts, origin.job.shard_prompts),
            ("sampling.n", job.sampling.n, origin.job.sampling.n),
        ):
            if ours != theirs:
                raise JobError(f"--set {name}: a retry has the rows of its run as they are there")
        if [file.digest for file in dataset.files] != [file.digest for file in origin.files]:
            raise InputError(
                f"{', '.join(file.uri for file in dataset.files)}: changed since "
                f"{origin.run_id} was prepared, and a retry reads its rows there"
            )

    def part(self, store: Store) -> None:
        """Look at every row once. Raises `RunIncomplete` where the run is not collected, and
        `JobError` where no row is chosen."""
        origin = self.origin
        summary = read_summary(store, origin.run_id)
        if summary is None:
            raise RunIncomplete(origin.run_id, "is not finished: resume it, then retry its rows")
        self.chosen = np.zeros(origin.num_rows, bool)
        with reading_outcomes(store, origin, summary.cuts) as outcomes:
            for entry, shard in zip(origin.shards, outcomes(), strict=True):
                chosen = np.array([self.where.chooses(outcome) for outcome in shard.outcomes])
                self.chosen[entry.first_index :][: len(chosen)] = chosen
                (self.directory / entry.shard_id).write_bytes(encode_shard(_kept(shard, chosen)))
        if not self.chosen.any():
            asked = " ".join(f"--where {condition}" for condition in self.follows.where)
            raise JobError(f"{asked or 'retry'}: no row of {origin.run_id} is of that kind")

    def merge(self, read: InputPass) -> tuple[ShardEntry, ...]:
        """Put the rows that were read again in their places. The shards lie in `directory`, under
        their ids; returns their entries."""
        again = _Rows(read)
        return tuple(self._merged(entry, again) for entry in self.origin.shards)

    def _merged(self, entry: ShardEntry, again: "_Rows") -> ShardEntry:
        path = self.directory / entry.shard_id
        table = read_shard_table(path.read_bytes())
        indexes = np.arange(entry.first_index, entry.first_index + entry.num_prompts)
        chosen = self.chosen[indexes]
        if chosen.any():
            ids = table.filter(pa.array(chosen)).column("prompt_id")
            new = again.next(int(chosen.sum()))
            new = _with(new, "index", pa.array(indexes[chosen]))
            new = _with(new, "prompt_id", ids)  # made ids say where a row stands
            kept = table.filter(pa.array(~chosen))
            table = pa.concat_tables([kept, new], promote_options="permissive").sort_by("index")
            path.write_bytes(encode_shard(_in_order(table)))
        counts = {
            "num_error_rows": num_error_rows(table),
            "num_reused_rows": num_reused_rows(table),
        }
        return entry.model_copy(update=counts)


class _Rows:
    """The rows that a pass has spooled, so many at a time."""

    def __init__(self, read: InputPass) -> None:
        assert read.spool is not None
        self._paths: Iterator[Path] = iter([read.spool / e.shard_id for e in read.entries])
        self._table: pa.Table | None = None

    def next(self, count: int) -> pa.Table:
        parts: list[pa.Table] = []
        while count:
            if self._table is None or not self._table.num_rows:
                self._table = read_shard_table(next(self._paths).read_bytes())
            parts.append(self._table.slice(0, count))
            self._table = self._table.slice(parts[-1].num_rows)
            count -= parts[-1].num_rows
        return pa.concat_tables(parts, promote_options="permissive")


def _kept(shard: ShardOutcomes, chosen: npt.NDArray[Any]) -> pa.Table:
    """The shard with the errors of its rows, and with whose answers the others take: of the run
    itself, or of those from which it has them."""
    table, first = shard.table, shard.outcomes[0].index
    errors = [None if chosen[n] else outcome.error for n, outcome in enumerate(shard.outcomes)]
    codes = [None if error is None else error.code.value for error in errors]
    messages = [None if error is None else error.message for error in errors]
    runs, indexes = references_of(table)
    indexes = np.where(runs < 0, first + np.arange(table.num_rows), indexes)
    runs = np.where(runs > 0, runs + 1, 1)
    nobodys = chosen | np.array([error is not None for error in errors])
    for name in ("from_run", "from_index"):
        if name in table.column_names:
            table = table.drop_columns(name)
    table = _with(table, "error_code", pa.array(codes, pa.string()))
    table = _with(table, "error_message", pa.array(messages, pa.string()))
    for name, values in (("from_run", runs), ("from_index", indexes)):
        kind = BESIDE.field(name)
        table = table.append_column(kind, pa.array(values, kind.type, mask=nobodys))
    return table


def _with(table: pa.Table, name: str, values: Any) -> pa.Table:
    place = table.column_names.index(name)
    return table.set_column(place, table.schema.field(name), values)


def _in_order(table: pa.Table) -> pa.Table:
    """The columns in the order that shards have."""
    ours = [name for name in (*SCHEMA.names, *BESIDE.names) if name in table.column_names]
    return table.select([*ours, *(name for name in table.column_names if name not in ours)])
