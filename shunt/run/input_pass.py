"""One pass over the input: what is wrong with it, and its shards on this machine's disk."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import JsonValue

from shunt.dataset.cutting import ShardCutter
from shunt.dataset.duplicates import IdRegister
from shunt.dataset.input_row import Chunk
from shunt.dataset.preflight import PreflightReport
from shunt.dataset.prompt_row import PromptReader
from shunt.dataset.reading import read_chunks
from shunt.dataset.rendering import Renderer
from shunt.dataset.row_error import RowError, RowErrorCode
from shunt.dataset.shard import encode_shard, num_error_rows, read_shard_table, shard_name
from shunt.errors import InputError
from shunt.job.job import Job
from shunt.job.model_defaults import told, with_model_defaults
from shunt.run.manifest import ShardEntry
from shunt.run.reuse import KeySpool
from shunt.run.run_id import Dataset, taken_defaults
from shunt.structure.backend import Compiler, NoCompiler, candidates_of
from shunt.structure.grammars import Grammars


@dataclass(slots=True)
class InputPass:
    """One streaming pass over the input; with a spool directory the shards are kept there."""

    job: Job
    dataset: Dataset
    renderer: Renderer
    spool: Path | None
    compiler: Compiler | None = None
    card: Mapping[str, JsonValue] = field(default_factory=dict[str, JsonValue])
    key_spool: KeySpool | None = None
    """Takes the keys of the rows, where answers may be reused."""
    only: npt.NDArray[Any] | None = None
    """Of each row of the input, whether it is read; the others do not count. None: all are."""
    overruled: Collection[str] = ()
    """Sampling parameters that count as the job has them, whatever a row says."""
    entries: list[ShardEntry] = field(default_factory=list[ShardEntry])
    refused: set[int] = field(default_factory=set[int])
    """Rows that were refused after they were cut, by index."""
    _register: IdRegister = field(default_factory=IdRegister)
    _notes: list[str] = field(default_factory=list[str])

    def run(self, sample: int | None) -> PreflightReport:
        job, dataset = self.job, self.dataset
        report = PreflightReport([file.uri for file in dataset.files], dataset.input_format)
        report.num_bytes = dataset.num_bytes
        report.context_tokens = self.renderer.max_model_len
        batch = dataset.input_format == "openai-batch"
        grammars = Grammars(self.compiler or NoCompiler(), candidates_of(job))
        settled = with_model_defaults(job, taken_defaults(job, self.card))
        reader = PromptReader(
            settled,
            self.renderer,
            openai_batch=batch,
            grammars=grammars,
            overruled=self.overruled,
        )
        cutter = ShardCutter(reader, job.shard_prompts, report, self._register)
        with _Spool(self.spool) as spool:
            for chunk in self._chunks(sample):
                for table in cutter.cut(chunk):
                    self._keep(table, spool)
            for table in cutter.rest():
                self._keep(table, spool)
        if report.num_rows == 0:
            raise InputError(f"{', '.join(report.files)}: there is no row in it")
        report.structured = grammars.seen
        report.grammar_backend = grammars.settle()
        unkept = {
            index: RowError(RowErrorCode.INVALID_SCHEMA, why)
            for index, why in grammars.refused(report.grammar_backend)
        }
        self._mark(report, unkept.items())
        repeated = self._repeated_ids(reader, sample)
        self._mark(report, (c for c in repeated if isinstance(c[1], str) or c[0] not in unkept))
        notes = [told(job, self.card), *reader.notes]
        notes += [grammars.compiler.note] if grammars.seen else []
        notes += dict.fromkeys(self._notes)  # each once, as some rows are read twice
        report.notes = [note for note in notes if note]
        return report

    def _chunks(self, sample: int | None) -> Iterator[Chunk]:
        """The input, or its first rows."""
        left = sample
        for chunk in self._chosen():
            if left is None:
                yield chunk
                continue
            yield chunk.first(left)
            left -= min(left, len(chunk))
            if left == 0:
                return

    def _chosen(self) -> Iterator[Chunk]:
        job_input, sources = self.job.input, self.dataset.sources
        note = self._notes.append
        first = 0
        for chunk in read_chunks(job_input, sources, self.dataset.input_format, note):
            if self.only is None:
                yield chunk
                continue
            positions = np.flatnonzero(self.only[first : first + len(chunk)]).tolist()
            first += len(chunk)
            if positions:
                yield chunk.take(positions)

    def _keep(self, table: pa.Table, spool: "_Spool") -> None:
        entry = ShardEntry(
            shard_id=shard_name(len(self.entries)),
            first_index=table.column("index")[0].as_py(),
            num_prompts=table.num_rows,
            num_error_rows=num_error_rows(table),
        )
        self.entries.append(entry)
        if self.key_spool is not None:
            self.key_spool.add(table)
        spool.write(entry.shard_id, table)

    def _mark(self, report: PreflightReport, found: Iterable[tuple[int, RowError | str]]) -> None:
        """Make good rows error rows, or give rows other ids, after they were cut. `found` is in
        the order of rows."""
        at = 0
        changes = Changes()
        for index, change in found:
            while index >= self.entries[at].first_index + self.entries[at].num_prompts:
                self._change_rows(at, changes, report)
                at, changes = at + 1, Changes()
            if isinstance(change, RowError):
                changes.refused[index] = change
            else:
                changes.renamed[index] = change
        self._change_rows(at, changes, report)

    def _repeated_ids(
        self, reader: PromptReader, sample: int | None
    ) -> Iterator[tuple[int, RowError | str]]:
        """Rows whose id is another's too, in order: the error of a good row but the first, or
        another id for a row that has none of its own, as a made id gives way to one that a row
        has. A second pass over the input compares the ids."""
        candidates = self._register.candidates()
        candidate = next(candidates, None)
        if candidate is None:
            return
        places: dict[str, str] = {}
        first = 0
        for chunk in self._chunks(sample):
            while candidate is not None and candidate < first + len(chunk):
                row = chunk.row(candidate - first)
                made = reader.read(row, candidate)
                prompt = made.prompt
                if not made.has_own_id:
                    yield candidate, self._other_id(prompt.prompt_id)
                elif made.malformed is None:
                    place = places.setdefault(prompt.prompt_id, row.place)
                    if place is not row.place and prompt.error is None:
                        message = f"{row.place}: id {prompt.prompt_id!r} is also at {place}"
                        yield candidate, RowError(RowErrorCode.DUPLICATE_ID, message)
                candidate = next(candidates, None)
            first += len(chunk)

    def _other_id(self, prompt_id: str) -> str:
        others = (f"{prompt_id}-{number}" for number in count(2))
        return next(other for other in others if not self._register.has(other))

    def _change_rows(self, position: int, changes: "Changes", report: PreflightReport) -> None:
        """Rewrite a spooled shard with these rows as error rows, and these under other ids."""
        for error in changes.refused.values():
            report.count_error(error)
        self.refused.update(changes.refused)
        if self.spool is None or not (changes.refused or changes.renamed):
            return
        entry = self.entries[position]
        path = self.spool / entry.shard_id
        table = changes.made_in(read_shard_table(path.read_bytes()), entry.first_index)
        path.write_bytes(encode_shard(table))
        self.entries[position] = entry.model_copy(update={"num_error_rows": num_error_rows(table)})


@dataclass(slots=True)
class Changes:
    """What a look at all ids changes in the rows of one shard, by index."""

    refused: dict[int, RowError] = field(default_factory=dict[int, RowError])
    renamed: dict[int, str] = field(default_factory=dict[int, str])

    def made_in(self, table: pa.Table, first_index: int) -> pa.Table:
        names = ("prompt_id", "error_code", "error_message")
        ids, codes, messages = (table.column(name).to_pylist() for name in names)
        for index, error in self.refused.items():
            row = index - first_index
            codes[row], messages[row] = error.code.value, error.message
        for index, prompt_id in self.renamed.items():
            ids[index - first_index] = prompt_id
        for name, values in zip(names, (ids, codes, messages), strict=True):
            column = pa.array(values, pa.string())
            table = table.set_column(table.column_names.index(name), name, column)
        return table


class _Spool:
    """Writes shards to a directory beside the reading, one at a time; without one, nowhere."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._pool = ThreadPoolExecutor(1)
        self._written: Future[int] | None = None

    def __enter__(self) -> "_Spool":
        return self

    def __exit__(self, *_exception: object) -> None:
        with self._pool:
            self._settle()

    def write(self, name: str, table: pa.Table) -> None:
        """Begin to write, once the shard before is written."""
        if self._directory is None:
            return
        self._settle()
        path = self._directory / name
        self._written = self._pool.submit(lambda: path.write_bytes(encode_shard(table)))

    def _settle(self) -> None:
        if self._written is not None:
            self._written.result()
