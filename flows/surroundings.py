"""What the process edge reads of its environment, in one place."""

import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from shunt.errors import JobError
from shunt.fleet.protocol import Fleet
from shunt.job.job import Job
from shunt.store.opening import directory_of
from shunt.store.patience import STORE_PATIENCE_S
from shunt.structure.backend import NO_WORKER, Compiler, NoCompiler
from shunt.structure.worker_compiler import WorkerCompiler

REPOSITORY = Path(__file__).resolve().parent.parent
WORKER_PYTHON = "SHUNT_WORKER_PYTHON"
"""Environment variable: interpreter of the worker environment."""
EC2_ENDPOINT = "AWS_ENDPOINT_URL_EC2"
"""Boto3's environment variable for an EC2 that is not AWS: the double, whose nodes are here."""

CODE = {"PYTHONPATH": str(REPOSITORY)}
"""What a process of the worker environment needs to find our packages."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a drive needs of the process that it runs in."""

    environment: Mapping[str, str]
    worker_python: Path
    log_directory: Path
    now: Callable[[], datetime]
    monotonic: Callable[[], float]
    stop: threading.Event
    """Set it to have the workers drain and the drive end."""
    devices: tuple[str, ...] = ()
    """GPUs of this machine, as CUDA_VISIBLE_DEVICES names them."""
    store_patience_s: float = STORE_PATIENCE_S
    """How long a store that is away is waited for while nodes work."""
    over: Callable[[Fleet], Fleet] = lambda fleet: fleet
    """What stands between the reconciler and the local fleet: a drill's trace."""


def surroundings(job: Job, stop: threading.Event) -> Surroundings:
    """Raises `JobError` when workers could not start, or could not reach their store."""
    worker_python = _worker_python(job, os.environ)
    if job.fleet.kind == "ec2":
        _check_reachable(job)
    elif job.fleet.kind == "local" and not worker_python.exists():
        raise no_worker_environment(worker_python)
    return Surroundings(
        environment={**os.environ, **CODE},
        worker_python=worker_python,
        log_directory=state_directory() / "logs",
        now=lambda: datetime.now(UTC),
        monotonic=time.monotonic,
        stop=stop,
        devices=_devices(os.environ.get("CUDA_VISIBLE_DEVICES")),
    )


def _worker_python(job: Job, environment: Mapping[str, str]) -> Path:
    named = job.fleet.worker_python
    return Path(named) if named else worker_python_in(environment)


def worker_python_in(environment: Mapping[str, str]) -> Path:
    """The interpreter of the worker environment, whether it is there or not."""
    named = environment.get(WORKER_PYTHON)
    return Path(named) if named else REPOSITORY / ".venv/worker/bin/python"


def no_worker_environment(worker_python: Path) -> JobError:
    return JobError(
        f"{worker_python}: the worker environment is not there; run `make environments`, or "
        f"set fleet.worker_python or {WORKER_PYTHON}"
    )


def grammar_compiler(job: Job, environment: Mapping[str, str]) -> AbstractContextManager[Compiler]:
    """What asks the engine's grammar back ends before anything runs; rules alone where there is
    no worker environment here. `job`: with its model on this machine."""
    python = _worker_python(job, environment)
    if job.model.engine_kind == "fake":
        return nullcontext(NoCompiler())
    if not python.exists():
        return nullcontext(NoCompiler(NO_WORKER))
    return WorkerCompiler(python, job.model.path, {**environment, **CODE})


def _devices(
    visible: str | None, driver: Path = Path("/proc/driver/nvidia/gpus")
) -> tuple[str, ...]:
    """The GPUs that this process may use: those it was given, or all that the driver has."""
    if visible is not None:
        return tuple(name.strip() for name in visible.split(",") if name.strip())
    found = list(driver.iterdir()) if driver.is_dir() else []
    return tuple(str(number) for number in range(len(found)))


def _check_reachable(job: Job) -> None:
    """A node's worker has its store's address from a tag, and its rights from its role."""
    store = job.store
    if os.environ.get(EC2_ENDPOINT):
        return
    if directory_of(store.uri) is not None:
        raise JobError(f"store.uri {store.uri}: nodes on EC2 reach s3:// stores only")
    if store.endpoint_url or store.access_key_id_env:
        raise JobError(
            "store: nodes on EC2 reach AWS's own S3 by their role; remove endpoint_url and *_env"
        )
    region = job.fleet.ec2.region if job.fleet.ec2 else None
    if store.region not in (None, region):
        raise JobError(
            f"store.region {store.region}: nodes of {region} reach buckets of their own region "
            "only; take a bucket there, or nodes where the bucket is"
        )


_QUIET = {"TRANSFORMERS_NO_ADVISORY_WARNINGS": "1", "TRANSFORMERS_VERBOSITY": "error"}
"""transformers warns of what is no news here: no PyTorch, and rows that preflight itself counts."""


def keep_quiet() -> None:
    """Before anything is imported that would speak on the terminal of whoever runs a command."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)


def state_directory() -> Path:
    """Where this machine keeps logs and Prefect's database: `.shunt` where one works."""
    return Path.cwd() / ".shunt"
