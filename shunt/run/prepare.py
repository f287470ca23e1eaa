"""Prepare: from a job to a run in the store. The same job over the same bytes is the same run."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import JsonValue

from shunt import keys
from shunt.dataset.preflight import PreflightReport
from shunt.dataset.rendering import Renderer
from shunt.errors import RunMissing
from shunt.job.job import Job
from shunt.model.listing import ModelListing
from shunt.run.input_pass import InputPass
from shunt.run.manifest import Manifest, read_manifest, write_manifest
from shunt.run.model_identity import model_files
from shunt.run.run_id import find_dataset, run_id_of, taken_defaults
from shunt.store.protocol import Store
from shunt.structure.backend import Compiler

_UPLOAD_THREADS = 8


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
        pass_ = InputPass(job, dataset, renderer, Path(spool), compiler, card or {})
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
        sampling_defaults=dict(taken_defaults(job, card)),
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
    return InputPass(job, find_dataset(job), renderer, None, compiler, card or {}).run(None)


def _upload(store: Store, run_id: str, shards: dict[str, Path]) -> None:
    """Create the shard objects that are not there yet; a few at a time, as they are small."""

    def create(item: tuple[str, Path]) -> None:
        shard_id, path = item
        store.put_if_absent(keys.shard_prompts(run_id, shard_id), path.read_bytes())

    items = iter(shards.items())
    with ThreadPoolExecutor(_UPLOAD_THREADS) as pool:
        while window := list(islice(items, 4 * _UPLOAD_THREADS)):
            list(pool.map(create, window))
