"""The flow run's side of a run: its name and tags, its sign of life in the store, its events."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.runtime import flow_run

from flows.prefect.run_events import RunEvents
from shunt.run.driver import Place, own_place
from shunt.run.manifest import Manifest
from shunt.run.showing import SHOWING_BEAT_S, Showing, write_showing
from shunt.run.status import RunStatus
from shunt.store.patience import AWAY
from shunt.store.protocol import Store

log = logging.getLogger(__name__)


@dataclass(slots=True)
class OnRecord:
    """Lives as long as the flow run drives the run. What the store does not take is passed over."""

    store: Store
    run_id: str
    now: Callable[[], datetime]
    events: RunEvents
    flow_run_id: str = field(default_factory=lambda: str(flow_run.get_id()))
    _place: Place = field(default_factory=own_place)
    _beat_at: datetime | None = None

    def seen(self, status: RunStatus) -> None:
        """Called with every look."""
        self.events.seen(status)
        now = self.now()
        if self._beat_at is None or (now - self._beat_at).total_seconds() >= SHOWING_BEAT_S:
            self.beat()

    def beat(self, *, ended: bool = False) -> None:
        """Say that the process lives, or that Prefect is told the end."""
        self._beat_at = self.now()
        showing = Showing(
            flow_run_id=self.flow_run_id, place=self._place, beat_at=self._beat_at, ended=ended
        )
        try:
            write_showing(self.store, self.run_id, showing)
        except AWAY as error:
            log.warning("sign of life of the flow run not stored: %s", error)


def tags_of(manifest: Manifest) -> list[str]:
    """By which a person finds all flow runs of a run, a job, a model."""
    job = manifest.job
    model = job.model.path.rstrip("/").rsplit("/", 1)[-1]
    return [
        f"run:{manifest.run_id}",
        f"job:{job.name}",
        f"model:{model}",
        f"fleet:{job.fleet.kind}",
    ]


def name_flow_run(manifest: Manifest) -> None:
    """Give the flow run the run's id as name, and tags beside those that it has."""
    flow_run_id = flow_run.get_id()
    assert flow_run_id is not None
    tags = [*flow_run.get_tags(), *tags_of(manifest)]
    with get_client(sync_client=True) as client:
        client.update_flow_run(
            UUID(flow_run_id), name=manifest.run_id, tags=list(dict.fromkeys(tags))
        )
