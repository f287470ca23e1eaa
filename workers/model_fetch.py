"""Bringing the run's model to this machine before the engine starts, and saying how far it is."""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from shunt.aws.imds import Imds
from shunt.model.fetching import FetchProgress, fetch
from shunt.run.cancellation import is_cancelled
from shunt.run.fetched_model import model_cache, source_of, with_directory
from shunt.run.manifest import Manifest
from shunt.run.node_status import NodeState, NodeStatus, write_status
from shunt.store.config import StoreConfig
from shunt.store.errors import StoreError
from shunt.store.protocol import Store
from workers.interruption import watch_notices, watch_pipe

_TELL_S = 2.0

log = logging.getLogger("workers")


@dataclass(slots=True)
class ModelFetch:
    """One fetch of one process of a node."""

    store: Store
    store_config: StoreConfig
    run_id: str
    node_id: str
    environment: Mapping[str, str]
    slot: str = ""
    stop: threading.Event = field(default_factory=threading.Event)
    """Set it to have the fetch end with `Interrupted`; what is there is kept."""
    _told_s: float = 0.0
    _started_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    def bring(self, manifest: Manifest) -> Manifest:
        """The manifest with the model at a directory of this machine. Raises `Interrupted`, where
        it was told to leave, and `ModelError`."""
        listing = manifest.model
        if listing is None:
            return manifest
        job = manifest.job
        source = source_of(job, self.environment, commit=listing.commit, store=self.store_config)
        cache = model_cache(self.environment)
        started_s = time.monotonic()
        folder = fetch(source, listing, cache, told=self._tell, stop=self.stop)
        log.info("model is here folder=%s after_s=%.1f", folder, time.monotonic() - started_s)
        return manifest.model_copy(update={"job": with_directory(job, folder)})

    def _tell(self, progress: FetchProgress) -> None:
        if time.monotonic() - self._told_s < _TELL_S:
            return
        self._told_s = time.monotonic()
        status = NodeStatus(
            node_id=self.node_id,
            slot=self.slot,
            pid=os.getpid(),
            state=NodeState.STARTING,
            started_at=self._started_at,
            updated_at=datetime.now(UTC),
            detail=str(progress),
        )
        try:
            write_status(self.store, self.run_id, status)
            if is_cancelled(self.store, self.run_id):
                self.stop.set()
        except StoreError as error:
            log.warning("status not stored: %s", error)


def bring_watched(
    bringing: ModelFetch, manifest: Manifest, *, watch_parent: bool, imds_url: str | None
) -> Manifest:
    """The manifest with the model on this machine. SIGTERM, SIGINT, the end of the parent and a
    notice of the provider end it with `Interrupted`. Raises `ModelError`."""
    if manifest.model is None:
        return manifest

    def told_to_leave(reason: str) -> None:
        log.info("leaving reason=%s", reason)
        bringing.stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):  # whoever works next sets its own after this
        signal.signal(number, lambda number, _frame: told_to_leave(signal.Signals(number).name))
    if watch_parent:
        watch_pipe(sys.stdin.fileno(), told_to_leave)
    arrived = threading.Event()
    if imds_url is not None:
        watch_notices(Imds(imds_url), told_to_leave, stopped=arrived)
    try:
        return bringing.bring(manifest)
    finally:
        arrived.set()
