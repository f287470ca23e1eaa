"""Collect: from checkpoint logs to result files, once every prompt is terminal."""

# Pyarrow's stubs leave type parameters open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, TypeVar

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from shunt import keys
from shunt.checkpoint.generation import Generation
from shunt.checkpoint.progress import ShardProgress, replay
from shunt.dataset.prompt import Prompt
from shunt.dataset.row_error import RowError, RowErrorCode
from shunt.dataset.shard import prompts_of, read_shard_table
from shunt.errors import CorruptSegment, JobError, RunIncomplete
from shunt.job.job import Job, bare_place
from shunt.job.sampling import StructuredOutput
from shunt.results.columns import LAYOUT_VERSION
from shunt.results.dataset_card import dataset_card
from shunt.results.outcome import Outcome, ShardOutcomes
from shunt.results.place import Reach
from shunt.results.publishing import is_whole, publish, remove_others, remove_partial
from shunt.results.summary import SUMMARY_NAME, ResultSummary, read_summary, result_file
from shunt.results.writing import DatasetFolder, Layout, ResultCounts, learn_layout, write_results
from shunt.run.batch_file import batch_file_of
from shunt.run.borrowed import Borrowed, Cuts, borrow, reused_run
from shunt.run.known_answers import mark_answered
from shunt.run.manifest import Manifest, ShardEntry
from shunt.store.errors import ObjectMissing
from shunt.store.opening import open_store
from shunt.store.protocol import Store
from shunt.structure.answer import Keeping, Kept, check_answer, worst_of
from shunt.structure.backend import reasons_first

_SHOWN = 8
_REPLAY_THREADS = 8
_CUTS_NAME = "cuts.json"
_MB = 1 << 20

ReadOutcomes = Callable[[], Iterator[ShardOutcomes]]
Seen = TypeVar("Seen")


class ShardsOpen(RunIncomplete):
    """Some shards had prompts without a terminal row; `shard_ids` names them."""

    def __init__(self, run_id: str, shard_ids: list[str]) -> None:
        shown = ", ".join(shard_ids[:_SHOWN]) + (" ..." if len(shard_ids) > _SHOWN else "")
        super().__init__(run_id, f"{len(shard_ids)} shards are not finished yet ({shown})")
        self.shard_ids = shard_ids


class ShardsCorrupt(RunIncomplete):
    """Stored objects of some shards contradict themselves; `shard_ids` names them."""

    def __init__(self, run_id: str, wrong: Mapping[str, str]) -> None:
        shown = "; ".join(f"shard {name}: {why}" for name, why in list(wrong.items())[:_SHOWN])
        more = " ..." if len(wrong) > _SHOWN else ""
        super().__init__(
            run_id,
            f"{len(wrong)} shards cannot be read ({shown}{more}), so the run stays incomplete. Put "
            "their objects back as they were written, then resume",
        )
        self.shard_ids = list(wrong)


class KeptCuts(BaseModel):
    """The log positions that results are made from, written down before the first row is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1] = 1
    cuts: Mapping[str, Mapping[int, int]]
    """Shard id -> epoch -> last segment that counts."""


def collect(
    store: Store,
    manifest: Manifest,
    *,
    output: str | None = None,
    now: datetime,
    reach: Reach = open_store,
) -> ResultSummary:
    """Write the result files, or return the summary of those that are there already.

    `output` overrides the job's directory. The files are made in a directory beside it and moved in
    at the end, the summary last. Raises `ShardsOpen` when a prompt is not terminal, and
    `ShardsCorrupt` when a log contradicts itself.
    """
    run_id = manifest.run_id
    standing = read_summary(store, run_id)
    directory = output_directory(manifest.job, run_id, output)
    if standing is not None and _is_as_asked(standing, manifest, directory, reach):
        return standing
    cuts = kept_cuts(store, manifest) if standing is None else standing.cuts
    with (
        TemporaryDirectory(prefix="shunt-collect-") as made_in,
        reading_outcomes(store, manifest, cuts) as outcomes,
    ):
        formats = manifest.job.output.formats
        counts, files = write_run(store, manifest, outcomes, Path(made_in), formats)
        summary = ResultSummary(
            run_id=run_id,
            collected_at=now,
            num_rows=counts.num_rows,
            num_ok=counts.num_rows - counts.errors.total(),
            num_errors=counts.errors.total(),
            errors=dict(counts.errors),
            num_prompt_tokens=counts.num_prompt_tokens,
            num_output_tokens=counts.num_output_tokens,
            num_resumed_rows=counts.num_resumed_rows,
            num_restarted_rows=counts.num_restarted_rows,
            num_cut_rows=counts.num_cut_rows,
            num_cut_structured_rows=counts.num_cut_structured_rows,
            num_reused_rows=counts.num_reused_rows,
            layout_version=LAYOUT_VERSION,
            has_origin=manifest.job.output.origin,
            directory=directory,
            files=tuple(result_file(path, name) for name, path in files.items()),
            cuts=cuts,
        )
        told = summary.model_dump_json(indent=2, exclude={"cuts"})
        publish(files, SUMMARY_NAME, told, directory, reach)
        if standing is not None and standing.directory == directory:
            remove_others(standing, files.keys(), reach)
        remove_partial(directory, reach)
    # Written again where files were written again: every writer says the same of the same log.
    store.put(keys.result(run_id, SUMMARY_NAME), summary.model_dump_json().encode())
    if manifest.job.reuse and manifest.follows is None:
        mark_answered(store, manifest.job.name, run_id, counts.unanswered)
    return summary


def write_run(
    store: Store,
    manifest: Manifest,
    shards: Callable[[], Iterable[ShardOutcomes]],
    directory: Path,
    formats: Collection[str],
) -> tuple[ResultCounts, dict[str, Path]]:
    """Write the rows that `shards` gives in these formats; the files are given by the names that
    they are to have. Raises `JobError`."""
    output = manifest.job.output
    try:
        counts, paths = write_results(
            shards,
            directory,
            run_layout(store, manifest, with_origin=output.origin),
            formats=formats,
            batch=batch_file_of(manifest),
            dataset=DatasetFolder(partial(_card, manifest), output.max_file_mb * _MB),
        )
        return counts, {path.relative_to(directory).as_posix(): path for path in paths}
    except OSError as error:
        reason = error.strerror or error
        raise JobError(f"{directory}: results cannot be written: {reason}") from error


def _card(manifest: Manifest, counts: ResultCounts) -> str:
    return dataset_card(
        manifest.run_id,
        manifest.job,
        num_rows=counts.num_rows,
        num_output_tokens=counts.num_output_tokens,
        errors=counts.errors,
        sampling_defaults=manifest.sampling_defaults,
    )


def _is_as_asked(standing: ResultSummary, manifest: Manifest, directory: str, reach: Reach) -> bool:
    wanted = manifest.job.output
    if (standing.directory, standing.has_origin) != (directory, wanted.origin):
        return False
    return is_whole(standing, wanted.formats, reach)


def output_directory(job: Job, run_id: str, path: str | None = None) -> str:
    """`output.path`, or another one, made the run's own."""
    path = job.output.path if path is None else bare_place(path)
    return path.replace("{run_id}", run_id) if "{run_id}" in path else f"{path}/{run_id}"


def kept_cuts(store: Store, manifest: Manifest) -> Cuts:
    """The cuts of the run's results, settled by whoever collects first: two that collect at once
    write the same files. Raises `ShardsOpen` and `ShardsCorrupt`."""
    key = keys.result(manifest.run_id, _CUTS_NAME)
    try:
        return KeptCuts.model_validate_json(store.get(key)).cuts
    except ObjectMissing:
        ours = KeptCuts(cuts=find_cuts(store, manifest))
    if store.put_if_absent(key, ours.model_dump_json().encode()):
        return ours.cuts
    return KeptCuts.model_validate_json(store.get(key)).cuts


def find_cuts(store: Store, manifest: Manifest) -> dict[str, dict[int, int]]:
    """The log positions that count now, per shard. Raises `ShardsOpen` and `ShardsCorrupt`."""

    def look(entry: ShardEntry, progress: ShardProgress) -> tuple[dict[int, int], bool]:
        prompts = prompts_of(
            shard_table(store, manifest, entry), defaults=manifest.settled_job.sampling
        )
        return dict(progress.cut), all(_terminal(p, progress) for p in prompts)

    looked, wrong = replay_all(store, manifest, look)
    if wrong:
        raise ShardsCorrupt(manifest.run_id, wrong)
    unfinished = [shard_id for shard_id, (_, finished) in looked.items() if not finished]
    if unfinished:
        raise ShardsOpen(manifest.run_id, unfinished)
    return {shard_id: cut for shard_id, (cut, _) in looked.items()}


def replay_all(
    store: Store, manifest: Manifest, look: Callable[[ShardEntry, ShardProgress], Seen]
) -> tuple[dict[str, Seen], dict[str, str]]:
    """What `look` sees in the log of each shard, a few shards at a time; and of the shards whose
    log contradicts itself, why."""
    wrong: dict[str, str] = {}

    def one(entry: ShardEntry) -> tuple[str, Seen] | None:
        try:
            progress = replay(store, manifest.run_id, entry.shard_id)
        except CorruptSegment as error:
            wrong[entry.shard_id] = str(error)
            return None
        return entry.shard_id, look(entry, progress)

    with ThreadPoolExecutor(_REPLAY_THREADS) as pool:
        found = list(pool.map(one, manifest.shards))
    return dict(filter(None, found)), dict(sorted(wrong.items()))


@contextmanager
def reading_outcomes(
    store: Store, manifest: Manifest, cuts: Cuts, without: Collection[str] = ()
) -> Generator[ReadOutcomes]:
    """Gives every shard's outcomes at these cuts, in input order, one shard at a time, as often as
    it is asked. `without`: ids of shards that nobody asks for.

    Raises `RunIncomplete` when a run that rows take answers from is gone.
    """

    def give(borrowed: Borrowed) -> Iterator[ShardOutcomes]:
        for entry in manifest.shards:
            if entry.shard_id not in without:
                read = _read_shard(store, manifest, entry, cuts, borrowed)
                yield _shard_outcomes(*read, manifest)

    with TemporaryDirectory(prefix="shunt-borrowed-") as directory:
        yield partial(give, borrow(store, manifest, cuts, Path(directory)))


@contextmanager
def reading_finished(store: Store, manifest: Manifest, cuts: Cuts) -> Generator[ReadOutcomes]:
    """The same of the rows that are terminal, and of the shards that have a cut."""

    def read(borrowed: Borrowed) -> Iterator[ShardOutcomes]:
        for entry in manifest.shards:
            if entry.shard_id not in cuts:
                continue
            table, prompts, progress = _read_shard(store, manifest, entry, cuts, borrowed)
            finished = [
                row
                for row, prompt in enumerate(prompts)
                if prompt.error is not None or _finished(prompt, progress)
            ]
            table = table.take(pa.array(finished, pa.int64()))
            yield _shard_outcomes(table, [prompts[row] for row in finished], progress, manifest)

    with TemporaryDirectory(prefix="shunt-borrowed-") as directory:
        yield partial(read, borrow(store, manifest, cuts, Path(directory)))


def _read_shard(
    store: Store, manifest: Manifest, entry: ShardEntry, cuts: Cuts, borrowed: Borrowed
) -> tuple[pa.Table, list[Prompt], ShardProgress]:
    progress = replay(store, manifest.run_id, entry.shard_id, cut=cuts[entry.shard_id])
    progress = borrowed.added_to(progress, entry.shard_id)
    table = shard_table(store, manifest, entry)
    return table, prompts_of(table, defaults=manifest.settled_job.sampling), progress


def shard_table(store: Store, manifest: Manifest, entry: ShardEntry) -> pa.Table:
    """The prompts of the shard, as they were prepared."""
    return read_shard_table(store.get(keys.shard_prompts(manifest.run_id, entry.shard_id)))


def _shard_outcomes(
    table: pa.Table, prompts: Sequence[Prompt], progress: ShardProgress, manifest: Manifest
) -> ShardOutcomes:
    outcomes = [checked_outcome(prompt, progress, manifest) for prompt in prompts]
    return ShardOutcomes(table, tuple(_with_origins(table, outcomes, manifest)))


def _with_origins(
    table: pa.Table, outcomes: Sequence[Outcome], manifest: Manifest
) -> Iterator[Outcome]:
    """The outcomes with what the shard says of their rows beside the prompts."""
    columns = (_beside(table, name) for name in ("malformed", "from_run", "from_index"))
    rows = zip(outcomes, origins(table, manifest), *columns, strict=True)
    for outcome, (file, line), raw, number, index in rows:
        outcome = replace(outcome, raw=raw, file=file, line=line)
        if number is not None:
            run_id = reused_run(manifest, number)
            outcome = replace(outcome, reused_from=run_id, reused_index=index)
        yield outcome


def origins(table: pa.Table, manifest: Manifest) -> Iterator[tuple[str | None, int | None]]:
    """File and line of each row of a shard; None where a shard of an earlier version has none."""
    for number, line in zip(_beside(table, "file"), _beside(table, "line"), strict=True):
        yield None if number is None else manifest.files[number].uri, line


def _beside(table: pa.Table, name: str) -> Sequence[Any]:
    if name in table.column_names:
        return table.column(name).to_pylist()
    return [None] * table.num_rows


def run_layout(
    store: Store, manifest: Manifest, *, with_origin: bool, version: int = LAYOUT_VERSION
) -> Layout:
    """The result columns of the run; see `learn_layout`."""
    own = manifest.job.input.columns.id
    tables = (shard_table(store, manifest, entry) for entry in manifest.shards)
    return learn_layout(
        (ShardOutcomes(table, ()) for table in tables),
        id_columns=[own] if own else ["custom_id", "id"],
        structured=manifest.structured,
        with_origin=with_origin,
        with_reuse=manifest.num_reused_rows > 0,
        version=version,
    )


def _outcome_of(prompt: Prompt, progress: ShardProgress) -> Outcome:
    """How the prompt ended. It must be terminal."""
    outcome = Outcome(
        prompt.index,
        prompt.prompt_id,
        error=prompt.error,
        structured=prompt.sampling.structured_outputs is not None,
    )
    if prompt.error is not None:
        return outcome
    generations: list[Generation] = []
    for choice in range(prompt.sampling.n):
        generation = progress.generations.get((prompt.index, choice))
        if generation is None:
            continue
        finish = generation.finish
        if finish is not None and finish.error is not None:
            return replace(outcome, generations=(generation,), error=finish.error)
        generations.append(generation)
    return replace(outcome, generations=tuple(generations))


def checked_outcome(prompt: Prompt, progress: ShardProgress, manifest: Manifest) -> Outcome:
    """How the prompt, which must be terminal, ended, with what became of its structured-output
    constraint; by the job's policy, a broken one makes it an error row."""
    outcome = _outcome_of(prompt, progress)
    structure = prompt.sampling.structured_outputs
    if not manifest.structured or structure is None or outcome.error is not None:
        return outcome
    reasons = reasons_first(manifest.job)
    found = [_kept(structure, g, reasons=reasons) for g in outcome.generations]
    kept = worst_of(found)
    if kept.keeping is Keeping.BROKEN and manifest.job.errors.broken_structure == "error":
        error = RowError(RowErrorCode.BROKEN_STRUCTURE, f"the answer breaks its schema: {kept.why}")
        return replace(outcome, error=error)
    return replace(outcome, kept=kept)


def _kept(structure: StructuredOutput, generation: Generation, *, reasons: bool) -> Kept:
    finish = generation.finish
    assert finish is not None
    ended = finish.finish_reason == "stop" and finish.stop_reason is None
    return check_answer(structure, finish.text, ended=ended, reasons=reasons)


def _terminal(prompt: Prompt, progress: ShardProgress) -> bool:
    return prompt.needs_no_engine or _finished(prompt, progress)


def _finished(prompt: Prompt, progress: ShardProgress) -> bool:
    return progress.finished(prompt.index, prompt.sampling.n)
