"""Workers that others start: a cluster's scheduler, or a person on another machine.

Nobody here buys, starts or ends them. They find the run in its store, take shards by lease, and
leave when they are told to or when nothing is left; the drive watches, and collects at the end.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from flows.surroundings import Surroundings
from shunt.errors import RunError
from shunt.fleet.worker_exit import DRAIN_LIMIT_S, WorkerExit
from shunt.run.cancellation import cancel, is_cancelled
from shunt.run.kept_job import changed_keys, current_job, keep_job
from shunt.run.manifest import Manifest, read_manifest
from shunt.run.status import RunState, RunStatus, StatusReader
from shunt.store.protocol import Store

_POLL_S = 2.0


@dataclass(slots=True)
class _Nobodys:
    """The course of nodes that are not ours: the run's own state says when it is done, and nobody
    is given up, as another may join."""

    done: bool = False
    failed: bool = False
    fault: str = ""
    _came: set[str] = field(default_factory=set[str])
    _lost: set[str] = field(default_factory=set[str])

    @property
    def num_lost(self) -> int:
        return len(self._lost)

    def saw(self, status: RunStatus) -> None:
        living = {node.node_id for node in status.living}
        done = {node.node_id for node in status.nodes if node.exit_code == WorkerExit.DONE}
        self._came |= living
        self._lost = self._came - living - done


@dataclass(slots=True)
class JoinedNodes:
    """Those that live, as the last look saw them."""

    deadline: datetime | None
    now: Callable[[], datetime]
    poll_s: float = _POLL_S
    reconciler: _Nobodys = field(default_factory=_Nobodys)
    _num_living: int = 0

    @property
    def limit(self) -> str:
        return deadline_passed(self.deadline, self.now())

    @property
    def num_workers(self) -> int:
        return self._num_living

    def step(self, status: RunStatus, left_s: float | None) -> None:
        del left_s  # they cost us nothing
        self._num_living = len(status.living)
        self.reconciler.saw(status)


@contextmanager
def hold_joined(
    manifest: Manifest, store: Store, around: Surroundings, *, recheck: bool
) -> Generator[JoinedNodes]:
    """Watch whoever joins. At the deadline, or where the run is cancelled, they are asked to leave
    and waited for; a drive that merely stops leaves them at work.

    Raises `RunError` where a marker of a shard promised too much: workers trust markers, unless
    they are told not to."""
    if recheck:
        raise RunError(
            manifest.run_id,
            "has shards that are marked done and are not. Let one worker look into all of them "
            "(shunt worker RUN --recheck), then resume",
        )
    known = current_job(store, read_manifest(store, manifest.run_id))
    if changed_keys(known, manifest.job):
        keep_job(store, manifest, manifest.job)
    nodes = JoinedNodes(manifest.job.limits.deadline, around.now)
    yield nodes
    reader = StatusReader(store, manifest.run_id)
    if nodes.limit and reader.read().state is RunState.OPEN:
        cancel(store, manifest.run_id)
    if is_cancelled(store, manifest.run_id):
        _wait_until_left(reader, around)


def _wait_until_left(reader: StatusReader, around: Surroundings) -> None:
    end_s = around.monotonic() + DRAIN_LIMIT_S
    while reader.read().living and around.monotonic() < end_s and not around.stop.is_set():
        around.stop.wait(_POLL_S)


def deadline_passed(deadline: datetime | None, now: datetime) -> str:
    """The sentence that ends a run; empty while it may go on."""
    if deadline is None or now < deadline:
        return ""
    return f"the deadline {deadline.isoformat()} has passed"
