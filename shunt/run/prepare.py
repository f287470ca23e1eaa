"""Prepare: from a job to a run in the store. The same job over the same bytes is the same run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import JsonValue

from shunt.dataset.answer_key import AnswerKeys
from shunt.dataset.preflight import PreflightReport
from shunt.dataset.rendering import Renderer
from shunt.errors import InputError, RunMissing
from shunt.job.job import Job
from shunt.job.model_defaults import with_model_defaults
from shunt.model.listing import ModelListing
from shunt.run.input_pass import InputPass
from shunt.run.known_answers import upload_known
from shunt.run.manifest import Follows, Manifest, ShardEntry, read_manifest, write_manifest
from shunt.run.model_identity import model_files
from shunt.run.retry import Retry, Where
from shunt.run.reuse import KeySpool, find_reuse, read_reuse, settle_reuse
from shunt.run.run_id import Dataset, answers_basis, find_dataset, run_id_of, taken_defaults
from shunt.run.uploading import upload_shards
from shunt.store.protocol import Store
from shunt.structure.backend import Compiler


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
    work = _Work(job, store, renderer, find_dataset(job), now, model, card or {}, compiler)
    run_id = run_id_of(job, work.dataset, sample=sample, model=model, card=card)
    try:
        return read_manifest(store, run_id)
    except RunMissing:
        pass  # prepared below
    with TemporaryDirectory(prefix="shunt-prepare-") as made_in:
        spool = Path(made_in)
        read = work.input_pass(spool)
        standing = read_reuse(store, run_id) if job.reuse else None
        day = renderer.tokenizer.day if standing is None else standing.day
        if job.reuse:
            read.key_spool = KeySpool(work.answer_keys(day), spool / "keys")
        report = work.read(read, sample, saw)
        reuse = None
        if read.key_spool is not None:
            row_keys = read.key_spool.mapped(read.refused)
            settled = settle_reuse(store, job.name, run_id, day)
            if settled.day != day:  # somebody prepared it beside us, on the other side of midnight
                raise InputError(f"{run_id}: is being prepared by somebody else; start again")
            backend, run_ids = report.grammar_backend, settled.run_ids
            reuse = find_reuse(row_keys, backend, store, job.name, run_ids, spool)
        mark = None if reuse is None or not reuse.num_rows else reuse.mark
        shards = upload_shards(store, run_id, read.entries, spool, mark)
        if reuse is None:
            return work.written(run_id, report, shards)
        upload_known(store, job.name, run_id, reuse.parts.items(), reuse.num_parts)
    return work.written(run_id, report, shards, reuse.runs)


def prepare_retry(
    job: Job,
    store: Store,
    renderer: Renderer,
    *,
    origin: Manifest,
    where: Where,
    now: datetime,
    model: ModelListing | None = None,
    card: Mapping[str, JsonValue] | None = None,
    compiler: Compiler | None = None,
    saw: Callable[[PreflightReport], None] = lambda _report: None,
) -> Manifest:
    """The manifest of a run that generates some rows of a finished one again, under this job, and
    takes all others from it. As idempotent as `prepare`.

    Raises `JobError` where no row is of that kind or the job asks for other rows, `InputError`
    where the input changed since, and `RunIncomplete` where the run is not collected.
    """
    work = _Work(job, store, renderer, find_dataset(job), now, model, card or {}, compiler)
    with TemporaryDirectory(prefix="shunt-prepare-") as made_in:
        retry = Retry(origin, where, Path(made_in) / "shards")
        retry.require_same_rows(job, work.dataset)
        run_id = run_id_of(job, work.dataset, model=model, card=card, follows=retry.follows)
        try:
            return read_manifest(store, run_id)
        except RunMissing:
            retry.directory.mkdir()
        retry.part(store)
        read = work.input_pass(Path(made_in))
        read.only, read.overruled = retry.chosen, retry.overruled(job)
        report = work.read(read, None, saw)
        report.structured |= origin.structured
        shards = upload_shards(store, run_id, retry.merge(read), retry.directory, None)
    return work.written(run_id, report, shards, retry.reused_runs, retry.follows)


def preflight(
    job: Job,
    renderer: Renderer,
    *,
    card: Mapping[str, JsonValue] | None = None,
    compiler: Compiler | None = None,
) -> PreflightReport:
    """One pass over the input that keeps nothing. Raises `InputError` for an unusable file."""
    return InputPass(job, find_dataset(job), renderer, None, compiler, card or {}).run(None)


@dataclass(frozen=True, slots=True)
class _Work:
    """What preparing a run needs at every step."""

    job: Job
    store: Store
    renderer: Renderer
    dataset: Dataset
    now: datetime
    model: ModelListing | None
    card: Mapping[str, JsonValue]
    compiler: Compiler | None

    def input_pass(self, spool: Path) -> InputPass:
        return InputPass(self.job, self.dataset, self.renderer, spool, self.compiler, self.card)

    def answer_keys(self, day: str) -> AnswerKeys:
        defaults = with_model_defaults(self.job, taken_defaults(self.job, self.card)).sampling
        basis = answers_basis(self.job, self.model)
        return AnswerKeys(basis, defaults, day)

    def read(
        self, read: InputPass, sample: int | None, saw: Callable[[PreflightReport], None]
    ) -> PreflightReport:
        """Make the pass, and hold what it found against the job's policy."""
        report = read.run(sample)
        saw(report)
        if self.job.errors.strict:
            report.require_clean()
        self.dataset.require_unchanged()
        return report

    def written(
        self,
        run_id: str,
        report: PreflightReport,
        shards: tuple[ShardEntry, ...],
        reused_runs: tuple[str, ...] = (),
        follows: Follows | None = None,
    ) -> Manifest:
        manifest = Manifest(
            run_id=run_id,
            created_at=self.now,
            job=self.job,
            input_format=self.dataset.input_format,
            files=self.dataset.files,
            shards=shards,
            model_files=model_files(self.job.model),
            model=self.model,
            grammar_backend=report.grammar_backend,
            sampling_defaults=dict(taken_defaults(self.job, self.card)),
            structured=report.structured,
            reused_runs=reused_runs,
            follows=follows,
        )
        return write_manifest(self.store, manifest)
