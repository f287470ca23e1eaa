"""The nodes of a drive: worker processes here, or machines of EC2, held through one seam."""

import json
import uuid
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from flows.drive.ec2_nodes import ec2_specs, hold_ec2
from flows.drive.joined_nodes import deadline_passed, hold_joined
from flows.surroundings import Surroundings
from shunt.checkpoint.gone import teller_of_gone
from shunt.errors import JobError
from shunt.fleet.local import LocalFleet, WorkerCommand
from shunt.fleet.reconcile import PlannedInterruption, Reconciler
from shunt.job.job import Job
from shunt.run.event import Event
from shunt.run.manifest import Manifest
from shunt.run.status import RunStatus
from shunt.store.credential_server import lent_credentials
from shunt.store.protocol import Store


class Course(Protocol):
    """How it goes with the nodes."""

    @property
    def done(self) -> bool:
        """Every worker has left because nothing is left to do."""
        ...

    @property
    def failed(self) -> bool:
        """None works any more, as all have failed too often."""
        ...

    @property
    def fault(self) -> str:
        """Why nodes end by a fault of ours; empty while none does."""
        ...

    @property
    def num_lost(self) -> int: ...


class HeldNodes(Protocol):
    """Nodes that are held at a run's work."""

    @property
    def reconciler(self) -> Course: ...

    @property
    def limit(self) -> str:
        """Why the run has to stop early; empty while it need not."""
        ...

    @property
    def poll_s(self) -> float:
        """How long to wait between two passes."""
        ...

    @property
    def num_workers(self) -> int:
        """Of the fleet as wanted."""
        ...

    def step(self, status: RunStatus, left_s: float | None) -> None:
        """One pass: launch what is missing, see off what goes. `left_s`: the work that is left, in
        seconds of the fleet as wanted; None where nobody knows yet."""
        ...


def hold_nodes(
    manifest: Manifest,
    store: Store,
    around: Surroundings,
    tell: Callable[[Event], None],
    *,
    recheck: bool,
) -> AbstractContextManager[HeldNodes]:
    """The nodes that the job asks for. Leaving them ends them all."""
    if manifest.job.fleet.kind == "ec2":
        return hold_ec2(manifest, store, around, tell, recheck=recheck)
    if manifest.job.fleet.kind == "joined":
        return hold_joined(manifest, store, around, recheck=recheck)
    return _hold_local(manifest, store, around, tell, recheck=recheck)


@dataclass(slots=True)
class _LocalNodes:
    reconciler: Reconciler
    deadline: datetime | None
    now: Callable[[], datetime]
    poll_s: float = 0.5

    @property
    def limit(self) -> str:
        return deadline_passed(self.deadline, self.now())

    @property
    def num_workers(self) -> int:
        return len(self.reconciler.slots)

    def step(self, status: RunStatus, left_s: float | None) -> None:
        del left_s  # processes of this machine have no budget to keep
        self.reconciler.step(status.output_tokens)


@contextmanager
def _hold_local(
    manifest: Manifest,
    store: Store,
    around: Surroundings,
    tell: Callable[[Event], None],
    *,
    recheck: bool,
) -> Generator[HeldNodes]:
    settings = manifest.job.fleet
    require_devices(manifest.job, len(around.devices))
    with (
        lent_credentials(manifest.job.store, around.environment) as lent,
        LocalFleet(
            command=_worker_command(manifest, around, lent, recheck=recheck),
            run_tag=uuid.uuid4().hex[:6],
            num_slots=settings.workers,
            devices=around.devices,
        ) as fleet,
    ):
        yield _LocalNodes(
            deadline=manifest.job.limits.deadline,
            now=around.now,
            reconciler=Reconciler(
                fleet=around.over(fleet),
                slots=slots_of(manifest, store),
                max_crashes=settings.max_crashes,
                monotonic=around.monotonic,
                now=around.now,
                tell=tell,
                on_gone=teller_of_gone(store, manifest.run_id),
                interruptions=[
                    PlannedInterruption(i.after_s, f"worker-{i.worker}", i.notice_s)
                    for i in settings.interruptions
                ],
            ),
        )


def require_devices(job: Job, num_devices: int) -> None:
    """Raises `JobError` where a local worker's engine needs more GPUs than are a worker's share.
    Machines without any run on their cores."""
    if not num_devices or job.model.engine_kind != "vllm":
        return
    needed, share = job.model.engine.num_gpus, max(1, num_devices // job.fleet.workers)
    if needed > share:
        raise JobError(
            f"each worker's engine needs {needed} GPUs (tensor_parallel_size times "
            f"pipeline_parallel_size), but {job.fleet.workers} workers share {num_devices} of this "
            f"machine, {share} each: set fleet.workers to {max(1, num_devices // needed)}, or "
            "smaller sizes"
        )


def slots_of(manifest: Manifest, store: Store) -> list[str]:
    """The places that workers fill at first, by name. Raises `JobError` where a plan is wanted and
    there is none."""
    settings = manifest.job.fleet
    if settings.kind == "joined":
        return []
    if settings.kind == "ec2":
        return list(ec2_specs(manifest, store))
    return [f"worker-{number}" for number in range(settings.workers)]


def _worker_command(
    manifest: Manifest, around: Surroundings, lent: Mapping[str, str], *, recheck: bool
) -> WorkerCommand:
    argv = [
        str(around.worker_python),
        "-m",
        "workers",
        "--store",
        json.dumps(manifest.job.store.model_dump(exclude_none=True)),
        "--run",
        manifest.run_id,
        "--job",
        manifest.job.model_dump_json(by_alias=True, exclude_unset=True),
    ]
    return WorkerCommand(
        argv=(*argv, "--recheck") if recheck else tuple(argv),
        environment={**around.environment, **lent},
        log_directory=around.log_directory,
    )
