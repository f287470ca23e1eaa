"""What a run has finished so far, as files that say that they are not all of it.

Only reads the run: nothing of it is settled, so it may go on meanwhile, and `collect` and `verify`
know nothing of these files.
"""

from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict

from shunt.results.place import Reach
from shunt.results.publishing import PARTIAL_SUMMARY_NAME, partial_name, publish
from shunt.results.summary import ResultFile, result_file
from shunt.run.collect import output_directory, reading_finished, replay_all, write_run
from shunt.run.manifest import Manifest
from shunt.store.opening import open_store
from shunt.store.protocol import Store


class PartialSummary(BaseModel):
    """Counts of the rows that were finished when it was made."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1] = 1
    partial: Literal[True] = True
    run_id: str
    collected_at: AwareDatetime
    num_rows: int
    """Of the whole run."""
    num_open: int
    """Rows that are not in the files, as they are not finished."""
    num_ok: int
    num_errors: int
    errors: dict[str, int]
    """Error rows by code."""
    num_output_tokens: int
    unreadable_shards: dict[str, str]
    """Shards whose log contradicts itself, and why; their rows count as open."""
    directory: str
    files: tuple[ResultFile, ...]


def collect_partial(
    store: Store,
    manifest: Manifest,
    *,
    output: str | None = None,
    now: datetime,
    reach: Reach = open_store,
) -> PartialSummary:
    """Write the finished rows, in input order, beside the place of the results.

    Their names have `partial` in them; `collect` removes them once it has written all rows.
    `output` overrides the job's directory. Raises `JobError` when it cannot be written.
    """
    # The log positions at one look, so that all files hold the same rows.
    cuts, unreadable = replay_all(store, manifest, lambda _, progress: dict(progress.cut))
    directory = output_directory(manifest.job, manifest.run_id, output)
    with (
        TemporaryDirectory(prefix="shunt-collect-") as made_in,
        reading_finished(store, manifest, cuts) as outcomes,
    ):
        # A folder of a dataset is made when all rows are there.
        formats = [name for name in manifest.job.output.formats if name != "dataset"] or ["parquet"]
        counts, written = write_run(store, manifest, outcomes, Path(made_in), formats)
        files = {partial_name(name): path for name, path in written.items()}
        summary = PartialSummary(
            run_id=manifest.run_id,
            collected_at=now,
            num_rows=manifest.num_rows,
            num_open=manifest.num_rows - counts.num_rows,
            num_ok=counts.num_rows - counts.errors.total(),
            num_errors=counts.errors.total(),
            errors=dict(counts.errors),
            num_output_tokens=counts.num_output_tokens,
            unreadable_shards=unreadable,
            directory=directory,
            files=tuple(result_file(path, name) for name, path in files.items()),
        )
        told = summary.model_dump_json(indent=2)
        publish(files, PARTIAL_SUMMARY_NAME, told, directory, reach)
    return summary
