"""Prepare: from a job to a run in the store. The same job over the same bytes is the same run."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count, islice
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
from pydantic import JsonValue

from shunt import keys
from shunt.dataset.cutting import ShardCutter
from shunt.dataset.duplicates import IdRegister
from shunt.dataset.files import SourceFile, input_files
from shunt.dataset.input_row import Chunk
from shunt.dataset.preflight import PreflightReport
from shunt.dataset.prompt_row import PromptReader
from shunt.dataset.reading import (
    InputFormat,
    input_format,
    partition_columns,
    read_chunks,
)
from shunt.dataset.rendering import Renderer
from shunt.dataset.row_error import RowError, RowErrorCode
from shunt.dataset.shard import encode_shard, num_error_rows, read_shard_table, shard_name
from shunt.errors import InputError, RunMissing
from shunt.job.job import Input, Job
from shunt.job.model_defaults import told, with_model_defaults
from shunt.model.listing import ModelListing
from shunt.run.manifest import InputFile, Manifest, ShardEntry, read_manifest, write_manifest
from shunt.run.model_identity import model_files, model_identity
from shunt.store.protocol import Store
from shunt.structure.backend import Compiler, NoCompiler, candidates_of
from shunt.structure.grammars import Grammars

FINGERPRINT_VERSION = 2
_UPLOAD_THREADS = 8
_ID_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Dataset:
    """The files of a job, found and fingerprinted."""

    sources: list[SourceFile]
    files: tuple[InputFile, ...]
    input_format: InputFormat
    stamps: tuple[tuple[object, ...], ...]
    """Of the files, as they were before the first byte was read."""

    @property
    def num_bytes(self) -> int:
        return sum(file.num_bytes for file in self.files)

    def require_unchanged(self) -> None:
        """Raises `InputError`: a file that was written to meanwhile is not the one input."""
        for source, stamp in zip(self.sources, self.stamps, strict=True):
            if source.stamp() != stamp:
                raise InputError(f"{source.uri}: changed while it was read; start again")


_NOT_DECISIVE = {"path", "endpoint_url", "format", "storage_options"}
"""Of the input: how it is reached. What it holds decides."""


def find_dataset(job: Job) -> Dataset:
    """Raises `InputError` when a path names nothing, cannot be read, or is of no known format."""
    sources = input_files(job.input)
    stamps = tuple(source.stamp() for source in sources)
    files: list[InputFile] = []
    for source in sources:
        num_bytes, digest = source.digest()
        files.append(InputFile(uri=source.uri, num_bytes=num_bytes, digest=digest))
    return Dataset(sources, tuple(files), input_format(job.input, sources), stamps)


def run_id_of(
    job: Job,
    dataset: Dataset,
    *,
    sample: int | None = None,
    model: ModelListing | None = None,
    card: Mapping[str, JsonValue] | None = None,
) -> str:
    """`{name}-{fingerprint}`: of the input's bytes and of everything that decides results.

    Not of the fleet, the store, the output or the checkpoint cadence, which may change between an
    interrupted run and its resumption.
    """
    decisive: dict[str, object] = {
        "version": FINGERPRINT_VERSION,
        "model": model_identity(job, model),
        "input": _decisive_input(job.input),
        "format": dataset.input_format,
        "sampling": job.sampling.model_dump(mode="json", by_alias=True),
        "shard_prompts": job.shard_prompts,
        "files": [file.digest for file in dataset.files],
        "sample": sample,
    }
    if taken := _taken(job, card):
        decisive["sampling_defaults"] = dict(taken)
    if any(partitions := partition_columns(dataset.sources)):
        decisive["partitions"] = partitions
    if job.errors.broken_structure != "keep":  # left out otherwise: older ids stay as they are
        decisive["broken_structure"] = job.errors.broken_structure
    text = json.dumps(decisive, sort_keys=True, separators=(",", ":"))
    return f"{job.name}-{hashlib.sha256(text.encode()).hexdigest()[:_ID_DIGITS]}"


def _decisive_input(job_input: Input) -> dict[str, object]:
    given = job_input.model_dump(mode="json", exclude=_NOT_DECISIVE)
    if job_input.delimiter is None:  # older ids stay as they are
        del given["delimiter"]
    return given


def prepare(
    job: Job,
    store: Store,
    renderer: Renderer,
    *,
    now: datetime,
    sample: int | None = None,
    model: ModelListing | None = None,
    card: Mapping[str, JsonValue] | None = None,
    compiler: Compiler | None = None,
    saw: Callable[[PreflightReport], None] = lambda _report: None,
) -> Manifest:
    """The run's manifest: the one that stands, or a new one over freshly cut shards.

    Idempotent: shards are created if absent under names that follow from the input alone, and the
    manifest comes last, so a crash anywhere is repaired by calling again. `card` is
    what the model says of sampling, `compiler` is asked about the rows' structured outputs. `saw`
    gets the preflight report when there was a pass.
    Raises `InputError` (a file that cannot be used; bad rows in strict mode) and `StoreError`.
    """
    dataset = find_dataset(job)
    run_id = run_id_of(job, dataset, sample=sample, model=model, card=card)
    try:
        return read_manifest(store, run_id)
    except RunMissing:
        pass  # prepared below
    with TemporaryDirectory(prefix="shunt-prepare-") as spool:
        pass_ = _Pass(job, dataset, renderer, Path(spool), compiler, card or {})
        report = pass_.run(sample)
        saw(report)
        if job.errors.strict:
            report.require_clean()
        dataset.require_unchanged()
        _upload(store, run_id, pass_.spooled)
        shards = tuple(pass_.entries)
    manifest = Manifest(
        run_id=run_id,
        created_at=now,
        job=job,
        input_format=dataset.input_format,
        files=dataset.files,
        shards=shards,
        model_files=model_files(job.model),
        model=model,
        grammar_backend=report.grammar_backend,
        sampling_defaults=dict(_taken(job, card)),
        structured=report.structured,
    )
    return write_manifest(store, manifest)


def preflight(
    job: Job,
    renderer: Renderer,
    *,
    card: Mapping[str, JsonValue] | None = None,
    compiler: Compiler | None = None,
) -> PreflightReport:
    """One pass over the input that keeps nothing. Raises `InputError` for an unusable file."""
    return _Pass(job, find_dataset(job), renderer, None, compiler, card or {}).run(None)


def _taken(job: Job, card: Mapping[str, JsonValue] | None) -> Mapping[str, JsonValue]:
    """What of the model's own sampling defaults decides results."""
    return card or {} if job.model.generation_config == "auto" else {}


@dataclass(slots=True)
class _Pass:
    """One streaming pass over the input; with a spool directory the shards are kept there."""

    job: Job
    dataset: Dataset
    renderer: Renderer
    spool: Path | None
    compiler: Compiler | None = None
    card: Mapping[str, JsonValue] = field(default_factory=dict[str, JsonValue])
    entries: list[ShardEntry] = field(default_factory=list[ShardEntry])
    _register: IdRegister = field(default_factory=IdRegister)
    _notes: list[str] = field(default_factory=list[str])

    @property
    def spooled(self) -> dict[str, Path]:
        assert self.spool is not None
        return {entry.shard_id: self.spool / entry.shard_id for entry in self.entries}

    def run(self, sample: int | None) -> PreflightReport:
        job, dataset = self.job, self.dataset
        report = PreflightReport([file.uri for file in dataset.files], dataset.input_format)
        report.num_bytes = dataset.num_bytes
        report.context_tokens = self.renderer.max_model_len
        batch = dataset.input_format == "openai-batch"
        grammars = Grammars(self.compiler or NoCompiler(), candidates_of(job))
        settled = with_model_defaults(job, _taken(job, self.card))
        reader = PromptReader(settled, self.renderer, openai_batch=batch, grammars=grammars)
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
        job_input, sources = self.job.input, self.dataset.sources
        note = self._notes.append
        for chunk in read_chunks(job_input, sources, self.dataset.input_format, note):
            if left is None:
                yield chunk
                continue
            yield chunk.first(left)
            left -= min(left, len(chunk))
            if left == 0:
                return

    def _keep(self, table: pa.Table, spool: "_Spool") -> None:
        entry = ShardEntry(
            shard_id=shard_name(len(self.entries)),
            first_index=table.column("index")[0].as_py(),
            num_prompts=table.num_rows,
            num_error_rows=num_error_rows(table),
        )
        self.entries.append(entry)
        spool.write(entry.shard_id, table)

    def _mark(self, report: PreflightReport, found: Iterable[tuple[int, RowError | str]]) -> None:
        """Make good rows error rows, or give rows other ids, after they were cut. `found` is in
        the order of rows."""
        at = 0
        changes = _Changes()
        for index, change in found:
            while index >= self.entries[at].first_index + self.entries[at].num_prompts:
                self._change_rows(at, changes, report)
                at, changes = at + 1, _Changes()
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

    def _change_rows(self, position: int, changes: "_Changes", report: PreflightReport) -> None:
        """Rewrite a spooled shard with these rows as error rows, and these under other ids."""
        for error in changes.refused.values():
            report.count_error(error)
        if self.spool is None or not (changes.refused or changes.renamed):
            return
        entry = self.entries[position]
        path = self.spool / entry.shard_id
        table = changes.made_in(read_shard_table(path.read_bytes()), entry.first_index)
        path.write_bytes(encode_shard(table))
        self.entries[position] = entry.model_copy(update={"num_error_rows": num_error_rows(table)})


@dataclass(slots=True)
class _Changes:
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


def _upload(store: Store, run_id: str, shards: dict[str, Path]) -> None:
    """Create the shard objects that are not there yet; a few at a time, as they are small."""

    def create(item: tuple[str, Path]) -> None:
        shard_id, path = item
        store.put_if_absent(keys.shard_prompts(run_id, shard_id), path.read_bytes())

    items = iter(shards.items())
    with ThreadPoolExecutor(_UPLOAD_THREADS) as pool:
        while window := list(islice(items, 4 * _UPLOAD_THREADS)):
            list(pool.map(create, window))
