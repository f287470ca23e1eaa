"""What a flow run's page shows of the run: a lane per worker, tables, the report, the summary.

Prefect shows and decides nothing: what it fails to record is told in the log and passed over.
"""

import json
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from queue import SimpleQueue
from uuid import UUID

import httpx
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_table_artifact,
)
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.exceptions import PrefectException

from flows.drive.drive import Ending, Watcher
from flows.prefect.on_record import OnRecord
from flows.prefect.shard_table import (
    ShardRow,
    artifact_key,
    bad_row_table,
    run_summary_markdown,
    shard_table,
)
from shunt.dataset.preflight import PreflightReport
from shunt.report.report import RunReport
from shunt.results.summary import ResultSummary
from shunt.run.event import Event
from shunt.run.manifest import Manifest
from shunt.run.outlook import Outlook
from shunt.run.status import RunStatus

ARTIFACT_INTERVAL_S = 20.0

SERVER_ERRORS = (httpx.HTTPError, PrefectException)
"""How a server that is gone, or refuses, shows in Prefect's client."""

log = logging.getLogger(__name__)


class FlowView:
    """Passes everything on to the watcher, and shows it on the flow run's page."""

    def __init__(self, watcher: Watcher, monotonic: Callable[[], float]) -> None:
        self._watcher = watcher
        self._monotonic = monotonic
        self._lanes: dict[str, SimpleQueue[Event | None]] = defaultdict(SimpleQueue)
        self._shown_s = -ARTIFACT_INTERVAL_S
        self._table: ShardTableArtifact | None = None
        self._last: RunStatus | None = None
        self.on_record: OnRecord | None = None
        """Set once there is a run: its flow run's tags, events and sign of life."""

    @property
    def shown(self) -> bool:
        """Whether anything of the run has been seen."""
        return self._last is not None

    def events_of(self, slot: str) -> Iterator[Event]:
        """What happens in a worker's place, as it happens, until the run ends."""
        while (event := self._lanes[slot].get()) is not None:
            yield event

    def close(self, slots: Sequence[str]) -> None:
        """Show the last shard table and end every lane."""
        if self._table is not None:
            self._table.close(shard_table(self._last) if self._last else None)
        for slot in slots:
            self._lanes[slot].put(None)

    def show_end(
        self, ending: Ending, manifest: Manifest, report: RunReport, *, report_at: str
    ) -> None:
        """The closing artifacts."""
        if self._table is not None and self._table.server_lost:
            return
        run_id = manifest.run_id
        if rows := bad_row_table(report.bad_rows):
            recorded("bad rows", lambda: create_table_artifact(
                rows, key=artifact_key("bad-rows", run_id), description="Rows without an answer"
            ))  # fmt: skip
        recorded("the report", lambda: create_link_artifact(
            report_at, "The report of the run", key=artifact_key("report", run_id)
        ))  # fmt: skip
        text = run_summary_markdown(ending, manifest, report, report_at=report_at)
        key = artifact_key("summary", run_id)
        recorded("the summary", lambda: create_markdown_artifact(text, key=key))

    def preflighted(self, report: PreflightReport) -> None:
        self._watcher.preflighted(report)

    def prepared(self, manifest: Manifest) -> None:
        self._table = ShardTableArtifact(artifact_key("shards", manifest.run_id))
        self._watcher.prepared(manifest)

    def seen(self, status: RunStatus, outlook: Outlook) -> None:
        self._watcher.seen(status, outlook)
        self._last = status
        if self.on_record is not None:
            self.on_record.seen(status)
        now_s = self._monotonic()
        if self._table is not None and now_s - self._shown_s >= ARTIFACT_INTERVAL_S:
            self._shown_s = now_s
            self._table.show(shard_table(status))

    def happened(self, event: Event) -> None:
        self._watcher.happened(event)
        self._lanes[event.slot].put(event)

    def collected(self, summary: ResultSummary) -> None:
        self._watcher.collected(summary)


class ShardTableArtifact:
    """One table artifact, created once and then kept up to date, beside the thread that drives."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="shard-table")
        self._pending: Future[None] | None = None
        self._artifact_id: UUID | None = None
        self.server_lost = False
        """Every later request would wait through all of Prefect's retries again."""

    def show(self, table: list[ShardRow]) -> None:
        """Skipped while an earlier table is still on its way."""
        if self._pending is None or self._pending.done():
            self._pending = self._pool.submit(copy_context().run, self._put, table)

    def close(self, table: list[ShardRow] | None) -> None:
        """Show this table as the last one."""
        if table is not None:
            self._pool.submit(copy_context().run, self._put, table)
        self._pool.shutdown()

    def _put(self, table: list[ShardRow]) -> None:
        if not self.server_lost:
            self.server_lost = not recorded("the shard table", lambda: self._send(table))

    def _send(self, table: list[ShardRow]) -> None:
        if self._artifact_id is None:
            made = create_table_artifact(table, key=self._key, description="Shards of the run")
            assert isinstance(made, UUID)
            self._artifact_id = made
            return
        with get_client(sync_client=True) as client:
            client.update_artifact(self._artifact_id, ArtifactUpdate(data=json.dumps(table)))


def recorded(what: str, record: Callable[[], object]) -> bool:
    """Whether Prefect took it; that it did not is told, and passed over."""
    try:
        record()
    except SERVER_ERRORS as error:
        log.warning("prefect did not record %s: %s", what, error)
        return False
    return True
