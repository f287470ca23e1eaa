"""Prepare: from a job to a run in the store. The same job over the same bytes is the same run."""

import hashlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa

from shunt import keys
from shunt.dataset.cutting import ShardCutter
from shunt.dataset.duplicates import IdRegister
from shunt.dataset.files import SourceFile, find_files
from shunt.dataset.prompt_row import PromptReader, PromptRow
from shunt.dataset.reading import InputFormat, input_format, read_chunks
from shunt.errors import InputError, RunMissing
from shunt.job import Job
from shunt.manifest import InputFile, Manifest, ShardEntry, read_manifest, write_manifest
from shunt.preflight import PreflightReport
from shunt.rendering import Renderer
from shunt.row_error import RowError, RowErrorCode
from shunt.shard import encode_shard, num_error_rows, read_shard_table, shard_name
from shunt.store.protocol import Store

FINGERPRINT_VERSION = 1
_UPLOAD_THREADS = 8
_ID_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Dataset:
    """The files of a job, found and fingerprinted."""

    sources: list[SourceFile]
    files: tuple[InputFile, ...]
    input_format: InputFormat

    @property
    def num_bytes(self) -> int:
        return sum(file.num_bytes for file in self.files)


def find_dataset(job: Job) -> Dataset:
    """Raises `InputError` when a path names nothing, cannot be read, or is of no known format."""
    sources = find_files(job.input.path, endpoint_url=job.input.endpoint_url)
    files: list[InputFile] = []
    for source in sources:
        num_bytes, digest = source.digest()
        files.append(InputFile(uri=source.uri, num_bytes=num_bytes, digest=digest))
    return Dataset(sources, tuple(files), input_format(job.input, sources))


def run_id_of(job: Job, dataset: Dataset, *, sample: int | None = None) -> str:
    """`{name}-{fingerprint}`: of the input's bytes and of everything that decides results.

    Not of the fleet, the store, the output or the checkpoint cadence, which may change between an
    interrupted run and its resumption.
    """
    decisive = {
        "version": FINGERPRINT_VERSION,
        "model": _model_identity(job),
        "input": job.input.model_dump(mode="json", exclude={"path", "endpoint_url", "format"}),
        "format": dataset.input_format,
        "sampling": job.sampling.model_dump(mode="json", by_alias=True),
        "shard_prompts": job.shard_prompts,
        "files": [file.digest for file in dataset.files],
        "sample": sample,
    }
    text = json.dumps(decisive, sort_keys=True, separators=(",", ":"))
    return f"{job.name}-{hashlib.sha256(text.encode()).hexdigest()[:_ID_DIGITS]}"


def prepare(
    job: Job,
    store: Store,
    renderer: Renderer,
    *,
    now: datetime,
    sample: int | None = None,
    saw: Callable[[PreflightReport], None] = lambda _report: None,
) -> Manifest:
    """The run's manifest: the one that stands, or a new one over freshly cut shards.

    Idempotent: shards are created if absent under names that follow from the input alone, and the
    manifest comes last, so a crash anywhere is repaired by calling again. `saw` gets the preflight
    report when there was a pass. Raises `InputError` (a file that cannot be used; bad rows in
    strict mode) and `StoreError`.
    """
    dataset = find_dataset(job)
    run_id = run_id_of(job, dataset, sample=sample)
    try:
        return read_manifest(store, run_id)
    except RunMissing:
        pass  # prepared below
    with TemporaryDirectory(prefix="shunt-prepare-") as spool:
        pass_ = _Pass(job, dataset, renderer, Path(spool))
        report = pass_.run(sample)
        saw(report)
        if job.errors.strict:
            report.require_clean()
        _upload(store, run_id, pass_.spooled)
        shards = tuple(pass_.entries)
    manifest = Manifest(
        run_id=run_id,
        created_at=now,
        job=job,
        input_format=dataset.input_format,
        files=dataset.files,
        shards=shards,
    )
    return write_manifest(store, manifest)


def preflight(job: Job, renderer: Renderer) -> PreflightReport:
    """One pass over the input that keeps nothing. Raises `InputError` for an unusable file."""
    return _Pass(job, find_dataset(job), renderer, None).run(None)


@dataclass(slots=True)
class _Pass:
    """One streaming pass over the input; with a spool directory the shards are kept there."""

    job: Job
    dataset: Dataset
    renderer: Renderer
    spool: Path | None
    entries: list[ShardEntry] = field(default_factory=list[ShardEntry])
    _register: IdRegister = field(default_factory=IdRegister)

    @property
    def spooled(self) -> dict[str, Path]:
        assert self.spool is not None
        return {entry.shard_id: self.spool / entry.shard_id for entry in self.entries}

    def run(self, sample: int | None) -> PreflightReport:
        job, dataset = self.job, self.dataset
        report = PreflightReport([file.uri for file in dataset.files], dataset.input_format)
        report.num_bytes = dataset.num_bytes
        batch = dataset.input_format == "openai-batch"
        cutter = ShardCutter(
            PromptReader(job, self.renderer, openai_batch=batch), job.shard_prompts
        )
        for prompts, table in _pieces(cutter, job, dataset, sample):
            for made in prompts:
                self._count(report, made)
            if table is not None:
                self._keep(table)
        if report.num_rows == 0:
            raise InputError(f"{', '.join(report.files)}: there is no row in it")
        self._mark_duplicates(report)
        return report

    def _count(self, report: PreflightReport, made: PromptRow) -> None:
        prompt = made.prompt
        report.num_rows += 1
        if made.has_own_id:
            self._register.add(prompt.prompt_id, prompt.index)
        if prompt.error is not None:
            report.count(prompt.error)
            return
        report.num_prompt_bytes += len(prompt.text or "") or 4 * len(prompt.token_ids or ())
        report.max_output_tokens += prompt.sampling.max_tokens * prompt.sampling.n

    def _keep(self, table: pa.Table) -> None:
        entry = ShardEntry(
            shard_id=shard_name(len(self.entries)),
            first_index=table.column("index")[0].as_py(),
            num_prompts=table.num_rows,
            num_error_rows=num_error_rows(table),
        )
        self.entries.append(entry)
        if self.spool is not None:
            (self.spool / entry.shard_id).write_bytes(encode_shard(table))

    def _mark_duplicates(self, report: PreflightReport) -> None:
        """Every later row of an id becomes an error row; the first one stays."""
        candidates = self._register.candidates()
        if not candidates:
            return
        ids = self._read_ids({index for group in candidates for index in group})
        refused: dict[int, RowError] = {}
        for group in candidates:
            first: dict[str, str] = {}
            for index in group:
                prompt_id, place = ids[index]
                if prompt_id in first:
                    message = f"{place}: id {prompt_id!r} is also at {first[prompt_id]}"
                    refused[index] = RowError(RowErrorCode.DUPLICATE_ID, message)
                else:
                    first[prompt_id] = place
        for position, entry in enumerate(self.entries):
            within = range(entry.first_index, entry.first_index + entry.num_prompts)
            here = {index: error for index, error in refused.items() if index in within}
            if here:
                self.entries[position] = self._refuse_rows(entry, here, report)

    def _read_ids(self, wanted: set[int]) -> dict[int, tuple[str, str]]:
        """Prompt id and place of some rows, by a second pass over the input."""
        batch = self.dataset.input_format == "openai-batch"
        reader = PromptReader(self.job, self.renderer, openai_batch=batch)
        found: dict[int, tuple[str, str]] = {}
        index = 0
        for chunk in read_chunks(self.job.input, self.dataset.sources, self.dataset.input_format):
            for row in chunk.rows:
                if index in wanted:
                    found[index] = reader.read(row, index).prompt.prompt_id, row.place
                index += 1
        return found

    def _refuse_rows(
        self, entry: ShardEntry, refused: dict[int, RowError], report: PreflightReport
    ) -> ShardEntry:
        """Rewrite a spooled shard with these rows as error rows."""
        if self.spool is None:
            for error in refused.values():
                report.count(error)
            return entry
        path = self.spool / entry.shard_id
        table = read_shard_table(path.read_bytes())
        codes, messages = (table.column(n).to_pylist() for n in ("error_code", "error_message"))
        for index, error in refused.items():
            row = index - entry.first_index
            if codes[row] is None:
                report.count(error)
                codes[row], messages[row] = error.code.value, error.message
        for name, values in (("error_code", codes), ("error_message", messages)):
            column = pa.array(values, pa.string())
            table = table.set_column(table.column_names.index(name), name, column)
        path.write_bytes(encode_shard(table))
        return entry.model_copy(update={"num_error_rows": num_error_rows(table)})


def _pieces(
    cutter: ShardCutter, job: Job, dataset: Dataset, sample: int | None
) -> Iterator[tuple[list[PromptRow], pa.Table | None]]:
    """The prompts of the input, each piece with the shard table that it completes."""
    left = sample
    for chunk in read_chunks(job.input, dataset.sources, dataset.input_format):
        if left is not None:
            chunk = chunk.first(left)
            left -= len(chunk.rows)
        yield from cutter.cut(chunk)
        if left == 0:
            break
    yield [], cutter.rest()


def _upload(store: Store, run_id: str, shards: dict[str, Path]) -> None:
    """Create the shard objects that are not there yet; a few at a time, as they are small."""

    def create(item: tuple[str, Path]) -> None:
        shard_id, path = item
        store.put_if_absent(keys.shard_prompts(run_id, shard_id), path.read_bytes())

    items = iter(shards.items())
    with ThreadPoolExecutor(_UPLOAD_THREADS) as pool:
        while window := list(islice(items, 4 * _UPLOAD_THREADS)):
            list(pool.map(create, window))


def _model_identity(job: Job) -> dict[str, object]:
    """What decides results of the model, without where on this machine it lies."""
    model = job.model
    config = Path(model.path) / "config.json"
    is_local = config.is_file()
    return {
        "name": Path(model.path).name if is_local else model.path,
        "config": hashlib.sha256(config.read_bytes()).hexdigest() if is_local else None,
        "revision": model.revision,
        "dtype": model.dtype,
        "max_model_len_tokens": model.max_model_len_tokens,
        "adapters": sorted(model.adapters),
        "engine_kind": model.engine_kind,
    }
