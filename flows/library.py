"""Running a job from Python: `with run(job) as batch: for row in batch: ...`.

The same drive as the command's, in a thread of the caller's process. Rows come as their shards are
done; everything is saved as ever, so a notebook that dies loses nothing: the same call goes on.
"""

# Pyarrow's stubs leave type parameters open.
# pyright: reportUnknownMemberType=false

import json
import os
import threading
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import JsonValue

from flows.drive.drive import Ending, prepare_run, resume
from flows.surroundings import surroundings
from shunt.checkpoint.done import done_shards
from shunt.dataset.preflight import PreflightReport
from shunt.errors import RunIncomplete
from shunt.job.job import Job
from shunt.job.job_file import load_job, override_job, resolve_paths
from shunt.results.columns import AddedColumns
from shunt.results.json_lines import json_lines
from shunt.results.place import reach_of
from shunt.results.publishing import PARQUET_NAME, result_copy
from shunt.results.summary import ResultSummary
from shunt.run.cancellation import cancel
from shunt.run.collect import reading_outcomes, replay_all, run_layout
from shunt.run.event import Event
from shunt.run.manifest import Manifest, ShardEntry
from shunt.run.outlook import Outlook
from shunt.run.status import RunStatus, StatusReader
from shunt.store.config import open_configured_store

_LOOK_S = 0.5


def run(job: Job | Mapping[str, JsonValue] | str | Path, *, sample: int | None = None) -> "Batch":
    """Start a job, or go on with it, and return at once.

    `job`: a job file's path, what stands in one (relative paths are then of the working directory),
    or a `Job`. `sample`: the first rows only. Results go where the job says, as Parquet too.
    Raises `JobError`, `InputError` and `StoreError` before anything is started.
    """
    if isinstance(job, str | Path):
        job = load_job(Path(job), [])
    elif not isinstance(job, Job):
        job = override_job(resolve_paths(dict(job), Path.cwd()), [])
    if "parquet" not in job.output.formats:
        formats = [*job.output.formats, "parquet"]
        output = job.output.model_copy(update={"formats": formats})
        job = job.model_copy(update={"output": output})
    return Batch(job, sample)


class Batch:
    """A run that goes on in the background. Iterate over it for its finished rows.

    A context manager: leaving it before the end lets the workers save what they have and leave.
    """

    def __init__(self, job: Job, sample: int | None) -> None:
        self._stop = threading.Event()
        self._around = surroundings(job, self._stop)
        self._store = open_configured_store(job.store, environment=os.environ)
        self._manifest = prepare_run(job, self._store, self._around, _Nobody(), sample=sample)
        self._ending: Ending | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._drive, name="shunt-drive", daemon=True)
        self._thread.start()

    def __enter__(self) -> "Batch":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def run_id(self) -> str:
        return self._manifest.run_id

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The rows as in `results.jsonl`, each once: shard by shard as they are done, so not in the
        order of the input. Raises what ended the run early, as `wait` does, when the rows that are
        there have been given."""
        given: set[str] = set()
        while self._thread.is_alive():
            done = done_shards(self._store, self.run_id) - given
            # Rows that take the answers of others may take them of a shard that is not done yet.
            ready = [e for e in self._shards if e.shard_id in done and not e.num_reused_rows]
            if ready:
                yield from self._rows(ready)
            given |= {entry.shard_id for entry in ready}
            self._thread.join(_LOOK_S)
        yield from self._rest(self.wait(), given)

    def status(self) -> RunStatus:
        """Where the run stands, from its store."""
        return StatusReader(self._store, self.run_id).read()

    def cancel(self) -> None:
        """As `shunt cancel`: the workers save what they have and leave. Running the job again goes
        on."""
        cancel(self._store, self.run_id)

    def wait(self) -> ResultSummary:
        """Wait for the end. Raises `RunIncomplete` where the run was stopped before every row had
        one, and whatever made it fail."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self._ending is not None
        if self._ending.summary is None:
            raise RunIncomplete(self.run_id, f"{self._ending.reason}: run the job again to go on")
        return self._ending.summary

    def results(self) -> pa.Table:
        """All rows in the order of the input, once the run has ended; see `wait`."""
        summary = self.wait()
        reach = reach_of(self._manifest.job, os.environ)
        with result_copy(summary.directory, PARQUET_NAME, reach) as path:
            if path is None:
                raise RunIncomplete(self.run_id, f"{PARQUET_NAME} is gone: collect it again")
            return pq.read_table(path)

    @property
    def _shards(self) -> tuple[ShardEntry, ...]:
        return self._manifest.shards

    def _drive(self) -> None:
        try:
            self._ending = resume(self._manifest, self._store, self._around, _Nobody())
        except BaseException as error:  # noqa: BLE001 - given to whoever waits
            self._error = error

    @cached_property
    def _columns(self) -> AddedColumns:
        whole = self._manifest
        origin = whole.job.output.origin
        return run_layout(self._store, whole, with_origin=origin).added

    def _rows(self, entries: list[ShardEntry]) -> Iterator[dict[str, Any]]:
        """Of shards that are done and take no answers of others."""
        part = self._manifest.model_copy(update={"shards": tuple(entries)})
        cuts, _ = replay_all(self._store, part, lambda _, progress: dict(progress.cut))
        with reading_outcomes(self._store, part, cuts) as outcomes:
            for shard in outcomes():
                yield from map(json.loads, json_lines(shard, self._columns))

    def _rest(self, summary: ResultSummary, given: set[str]) -> Iterator[dict[str, Any]]:
        with reading_outcomes(self._store, self._manifest, summary.cuts, given) as outcomes:
            for shard in outcomes():
                yield from map(json.loads, json_lines(shard, self._columns))


class _Nobody:
    """A watcher that tells nobody."""

    def preflighted(self, report: PreflightReport) -> None: ...

    def prepared(self, manifest: Manifest) -> None: ...

    def seen(self, status: RunStatus, outlook: Outlook) -> None: ...

    def happened(self, event: Event) -> None: ...

    def collected(self, summary: ResultSummary) -> None: ...
