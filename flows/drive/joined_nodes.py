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
from shunt.run.kept_job import changed_keys, current_job, keep_job
from shunt.run.manifest import Manifest, read_manifest
from shunt.run.status import RunStatus
from shunt.store.protocol import Store

_POLL_S = 2.0


@dataclass(frozen=True, slots=True)
class _Nobodys:
    """The course of nodes that are not ours: the run's own state says when it is done."""

    done: bool = False
    failed: bool = False
    fault: str = ""
    num_lost: int = 0


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


@contextmanager
def hold_joined(
    manifest: Manifest, store: Store, around: Surroundings, *, recheck: bool
) -> Generator[JoinedNodes]:
    """Watch whoever joins. Raises `RunError` where a marker of a shard promised too much: workers
    trust markers, unless they are told not to."""
    if recheck:
        raise RunError(
            manifest.run_id,
            "has shards that are marked done and are not. Let one worker look into all of them "
            "(shunt worker RUN --recheck), then resume",
        )
    known = current_job(store, read_manifest(store, manifest.run_id))
    if changed_keys(known, manifest.job):
        keep_job(store, manifest, manifest.job)
    yield JoinedNodes(manifest.job.limits.deadline, around.now)


def deadline_passed(deadline: datetime | None, now: datetime) -> str:
    """The sentence that ends a run; empty while it may go on."""
    if deadline is None or now < deadline:
        return ""
    return f"the deadline {deadline.isoformat()} has passed"
