"""Writing the result files of a run: streamed, and visible only when they are whole."""

# Pyarrow's stubs leave type parameters open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import pyarrow as pa

from shunt.checkpoint.generation import Resumption
from shunt.dataset.shard import CARRIED_PREFIX
from shunt.results.columns import (
    LAYOUT_VERSION,
    OF_STRUCTURE,
    ORIGIN,
    RAW_ROW,
    REUSE,
    AddedColumns,
    weakest_resumption,
)
from shunt.results.json_lines import carried_rows, input_columns, json_lines
from shunt.results.openai_lines import BatchFile
from shunt.results.outcome import Outcome, ShardOutcomes
from shunt.results.parquet import ColumnTypes, carried_schema, write_parquet, write_parts
from shunt.results.publishing import (
    BATCH_ERRORS_NAME,
    BATCH_OUTPUT_NAME,
    CARD_NAME,
    JSONL_NAME,
    PARQUET_NAME,
    PARTS_PREFIX,
)


@dataclass(frozen=True, slots=True)
class Layout:
    """The shape of a run's results, learnt from its shards before the first row is written."""

    added: AddedColumns
    types: ColumnTypes | pa.Schema
    """Of JSON rows; the columns of all shards, for tabular inputs."""


@dataclass(frozen=True, slots=True)
class DatasetFolder:
    """What a folder of a dataset says of itself, and how large its files are at most."""

    card: "Callable[[ResultCounts], str]"
    max_bytes: int


@dataclass(slots=True)
class ResultCounts:
    """What went into the files."""

    num_rows: int = 0
    num_prompt_tokens: int = 0
    num_output_tokens: int = 0
    num_resumed_rows: int = 0
    num_restarted_rows: int = 0
    num_cut_rows: int = 0
    num_cut_structured_rows: int = 0
    num_reused_rows: int = 0
    unanswered: "array[int]" = field(default_factory=lambda: array("q"))
    """Indexes of the rows that this run could not answer."""
    errors: Counter[str] = field(default_factory=Counter[str])

    def count(self, outcome: Outcome) -> None:
        self.num_rows += 1
        self.num_reused_rows += outcome.reused_from is not None
        generations = outcome.generations
        self.num_prompt_tokens += generations[0].num_prompt_tokens if generations else 0
        self.num_output_tokens += sum(len(g.token_ids) for g in generations)
        if outcome.reused_from is None:  # of others, it was another run's trouble
            self.num_resumed_rows += any(g.num_resumes for g in generations)
            self.num_restarted_rows += weakest_resumption(generations) is Resumption.RESTARTED
        self.num_cut_rows += outcome.is_cut
        self.num_cut_structured_rows += outcome.is_cut and outcome.structured
        if outcome.error is not None:
            self.errors[outcome.error.code.value] += 1
            self.unanswered.append(outcome.index)


def learn_layout(
    shards: Iterable[ShardOutcomes],
    *,
    id_columns: Sequence[str],
    structured: bool = False,
    with_origin: bool = False,
    with_reuse: bool = False,
    version: int = LAYOUT_VERSION,
) -> Layout:
    """One pass over the prompts alone: outcomes may be missing.

    `structured`: results have the columns about structured outputs. `with_origin`: they say where
    each row came from. `with_reuse`: and whose answer it takes. `version`: of the columns' names.
    """
    names: set[str] = set()
    types = ColumnTypes()
    tabular = has_raw_rows = False
    carried = pa.schema([])
    for shard in shards:
        tabular = any(name.startswith(CARRIED_PREFIX) for name in shard.table.column_names)
        has_raw_rows |= "malformed" in shard.table.column_names
        if tabular:
            names |= input_columns(shard)
            carried = pa.unify_schemas(
                [carried, carried_schema(shard)], promote_options="permissive"
            )
            continue
        for row in carried_rows(shard):
            names |= row.keys()
            types.learn(row)
    if version == 1:
        added = AddedColumns.of_version_1(names, has_ids=not names.isdisjoint(id_columns))
        return Layout(added, carried if tabular else types)
    beside = [
        *(OF_STRUCTURE if structured else ()),
        *([RAW_ROW] if has_raw_rows else ()),
        *(ORIGIN if with_origin else ()),
        *(REUSE if with_reuse else ()),
    ]
    added = AddedColumns.beside(names, id_columns=id_columns, beside=beside)
    return Layout(added, carried if tabular else types)


def write_results(
    shards: Callable[[], Iterable[ShardOutcomes]],
    directory: Path,
    layout: Layout,
    *,
    formats: Collection[str],
    batch: BatchFile | None,
    dataset: "DatasetFolder | None" = None,
) -> tuple[ResultCounts, list[Path]]:
    """Write the files into `directory`, which should be a fresh one; returns counts and paths.

    `batch`: of an OpenAI batch input. `dataset`: of a run whose results are one. `shards` is
    iterated once per kind of file, so that memory stays at one shard.
    """
    counts = ResultCounts()
    paths: list[Path] = []
    with ExitStack() as stack:
        lines = _opened(stack, directory / JSONL_NAME, paths) if "jsonl" in formats else None
        output = errors = None
        if batch is not None:
            output = _opened(stack, directory / BATCH_OUTPUT_NAME, paths)
            errors = _opened(stack, directory / BATCH_ERRORS_NAME, paths)
        for shard in shards():
            for outcome in shard.outcomes:
                counts.count(outcome)
            if lines is not None:
                lines.writelines(f"{line}\n" for line in json_lines(shard, layout.added))
            if batch is not None and output is not None and errors is not None:
                rows = shard.table.column("row").to_pylist()
                for row, outcome in zip(rows, shard.outcomes, strict=True):
                    line = batch.line(row, outcome)
                    (output if outcome.error is None else errors).write(f"{line}\n")
    if "parquet" in formats:
        paths.append(directory / PARQUET_NAME)
        write_parquet(paths[-1], shards(), layout.added, layout.types)
    if dataset is not None and "dataset" in formats:
        paths += _write_dataset(shards(), directory, layout, dataset, counts)
    return counts, paths


def _write_dataset(
    shards: Iterable[ShardOutcomes],
    directory: Path,
    layout: Layout,
    dataset: "DatasetFolder",
    counts: ResultCounts,
) -> list[Path]:
    parts = directory / PARTS_PREFIX
    parts.mkdir(parents=True)
    written = write_parts(parts, shards, layout.added, layout.types, max_bytes=dataset.max_bytes)
    card = directory / CARD_NAME
    card.write_text(dataset.card(counts), encoding="utf-8")
    return [card, *written]


def _opened(stack: ExitStack, path: Path, paths: list[Path]) -> IO[str]:
    paths.append(path)
    return stack.enter_context(path.open("w", encoding="utf-8", newline="\n"))
