"""Verify: does the log give every prompt exactly one terminal row, and do the results say so?"""

# Pyarrow's stubs leave type parameters open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import JsonValue

from shunt.dataset.duplicates import IdRegister
from shunt.results.columns import AddedColumns
from shunt.results.outcome import Outcome
from shunt.results.place import Reach
from shunt.results.publishing import (
    BATCH_ERRORS_NAME,
    BATCH_OUTPUT_NAME,
    CARD_NAME,
    JSONL_NAME,
    PARQUET_NAME,
    PARTS_PREFIX,
    result_copy,
)
from shunt.results.summary import ResultFile, ResultSummary, read_summary, result_file
from shunt.run.borrowed import Cuts
from shunt.run.collect import ReadOutcomes, find_cuts, reading_outcomes, run_layout
from shunt.run.manifest import Manifest
from shunt.store.opening import open_store
from shunt.store.protocol import Store

MAX_PROBLEMS = 50
_BATCH_ROWS = 1024
_FLOAT_COLUMNS = ("logprobs", "prompt_logprobs", "generations")
"""Hold 32-bit floats in Parquet: their digest is checked, their values are not compared again."""


@dataclass(slots=True)
class VerifyReport:
    """What was checked and what is wrong."""

    run_id: str
    num_rows: int = 0
    num_segments: int = 0
    files: list[str] = field(default_factory=list[str])
    problems: list[str] = field(default_factory=list[str])

    @property
    def ok(self) -> bool:
        return not self.problems

    def problem(self, what: str) -> None:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(what)


def verify(
    store: Store, manifest: Manifest, *, results: str | None = None, reach: Reach = open_store
) -> VerifyReport:
    """Replay every shard and compare with the result files, which are read where they lie: in a
    directory, or one after the other from S3. `results`: where a copy of them is.

    Raises `ShardsOpen` when the run is not finished, `ShardsCorrupt` when a log contradicts itself.
    """
    report = VerifyReport(manifest.run_id)
    summary = read_summary(store, manifest.run_id)
    cuts: Cuts = find_cuts(store, manifest) if summary is None else summary.cuts
    report.num_segments = sum(last + 1 for cut in cuts.values() for last in cut.values())
    with reading_outcomes(store, manifest, cuts) as outcomes:
        _check(report, _Expected(manifest, outcomes), store, summary, results, reach)
    return report


def _check(
    report: VerifyReport,
    expected: "_Expected",
    store: Store,
    summary: ResultSummary | None,
    results: str | None,
    reach: Reach,
) -> None:
    _check_rows(report, expected)
    if summary is None:
        report.problem("results are not collected yet: run `shunt collect`")
        return
    added = run_layout(
        store, expected.manifest, with_origin=summary.has_origin, version=summary.layout_version
    ).added
    parts = [file for file in summary.files if file.name.startswith(PARTS_PREFIX)]
    if parts:
        rows = _part_rows(report, parts, results or summary.directory, reach, added)
        _compare(report, PARTS_PREFIX, expected, added, rows)
    for file in summary.files:
        if file in parts:
            continue
        with result_copy(results or summary.directory, file.name, reach) as path:
            _check_file(report, file, path)
            if path is None or file.name in DIGEST_ALONE:
                continue
            if (rows_of := ROWS_OF.get(file.name)) is None:
                report.problem(f"{file.name}: is of a format that verify cannot read")
            else:
                _compare(report, file.name, expected, added, rows_of(path, added))


@dataclass(frozen=True, slots=True)
class _Expected:
    """The outcomes that the log gives, again and again."""

    manifest: Manifest
    read: ReadOutcomes

    def outcomes(self) -> Iterator[Outcome]:
        for shard in self.read():
            yield from shard.outcomes


def _check_rows(report: VerifyReport, expected: _Expected) -> None:
    """Every index once, in order; every outcome terminal; no id with two good rows."""
    ids = IdRegister()
    good: list[str] = []
    for expected_index, outcome in enumerate(expected.outcomes()):
        report.num_rows += 1
        if outcome.index != expected_index:
            report.problem(f"row {expected_index}: the shards hold row {outcome.index} there")
        if outcome.error is None:
            unfinished = [g for g in outcome.generations if g.finish is None]
            if not outcome.generations or unfinished:
                report.problem(f"row {outcome.index} ({outcome.prompt_id}): is not terminal")
            good.append(outcome.prompt_id)
        if len(good) == _BATCH_ROWS:
            ids.add(good)
            good = []
    ids.add(good)
    _check_ids(report, expected, set(ids.candidates()))
    num_rows = expected.manifest.num_rows
    if report.num_rows != num_rows:
        report.problem(f"the shards hold {report.num_rows} rows, not {num_rows}")


def _check_ids(report: VerifyReport, expected: _Expected, candidates: set[int]) -> None:
    """`candidates`: numbers among the good rows whose ids may be another's too."""
    if not candidates:
        return
    good = (outcome.prompt_id for outcome in expected.outcomes() if outcome.error is None)
    counts = Counter(name for number, name in enumerate(good) if number in candidates)
    for prompt_id, count in counts.items():
        if count > 1:
            report.problem(f"id {prompt_id}: has {count} good rows")


def _check_file(report: VerifyReport, file: ResultFile, path: Path | None) -> None:
    report.files.append(file.name)
    if path is None:
        report.problem(f"{file.name}: is missing")
    elif result_file(path, file.name) != file:
        report.problem(f"{file.name}: was changed after it was written")


def _compare(
    report: VerifyReport,
    name: str,
    expected: _Expected,
    added: AddedColumns,
    rows: Iterator[dict[str, Any] | None],
) -> None:
    """Row by row: ours against the file's. A row that is missing or extra shows by its position."""
    position = 0
    for outcome in expected.outcomes():
        try:
            row = next(rows, None)
        except (pa.ArrowException, OSError, ValueError) as error:
            report.problem(f"{name}: cannot be read after {position} rows: {error}")
            return
        if row is None:
            report.problem(f"{name}: ends after {position} of {expected.manifest.num_rows} rows")
            return
        position += 1
        values = added.values(outcome)
        for plain, column in added.names.items():
            value = values[column]
            if plain not in _FLOAT_COLUMNS and not _same(row.get(column), value):
                report.problem(
                    f"{name} row {outcome.index} ({outcome.prompt_id}): {column} is "
                    f"{row.get(column)!r}, the log says {value!r}"
                )
    if next(rows, None) is not None:
        report.problem(f"{name}: has more than {position} rows")


def _same(found: object, wanted: JsonValue) -> bool:
    return found == wanted


def _json_rows(path: Path, added: AddedColumns) -> Iterator[dict[str, Any] | None]:
    del added  # a line has them all
    with path.open(encoding="utf-8", errors="replace", newline="\n") as lines:
        for line in lines:
            try:
                row: object = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            yield cast("dict[str, Any]", row) if isinstance(row, dict) else {}


def _parquet_rows(path: Path, added: AddedColumns) -> Iterator[dict[str, Any] | None]:
    file = pq.ParquetFile(path)
    wanted = {name for plain, name in added.names.items() if plain not in _FLOAT_COLUMNS}
    names = [name for name in file.schema_arrow.names if name in wanted]
    for batch in file.iter_batches(_BATCH_ROWS, columns=names):
        yield from batch.to_pylist()


def _part_rows(
    report: VerifyReport,
    files: Sequence[ResultFile],
    directory: str,
    reach: Reach,
    added: AddedColumns,
) -> Iterator[dict[str, Any] | None]:
    """Of the files of a dataset, one after the other."""
    for file in files:
        with result_copy(directory, file.name, reach) as path:
            _check_file(report, file, path)
            if path is None:
                return
            yield from _parquet_rows(path, added)


ROWS_OF: Mapping[str, Callable[[Path, AddedColumns], Iterator[dict[str, Any] | None]]] = {
    JSONL_NAME: _json_rows,
    PARQUET_NAME: _parquet_rows,
}
"""How the rows of each result file are read back. A format that a job may ask for belongs here."""
DIGEST_ALONE = (BATCH_OUTPUT_NAME, BATCH_ERRORS_NAME, CARD_NAME)
"""The lines of OpenAI's batch API are held to their digest: the rows are those of the others."""
