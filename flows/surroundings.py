"""What the process edge reads of its environment, in one place."""

import os
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

from flows.drive import Surroundings
from shunt.errors import JobError
from shunt.job import Job

REPOSITORY = Path(__file__).resolve().parent.parent
WORKER_PYTHON = "SHUNT_WORKER_PYTHON"
"""Environment variable: interpreter of the worker environment."""


def surroundings(job: Job, stop: threading.Event) -> Surroundings:
    """Raises `JobError` when there is no worker environment."""
    named = job.fleet.worker_python or os.environ.get(WORKER_PYTHON)
    worker_python = Path(named) if named else REPOSITORY / ".venv/worker/bin/python"
    if not worker_python.exists():
        raise JobError(
            f"{worker_python}: the worker environment is not there; run `make environments`, or "
            f"set fleet.worker_python or {WORKER_PYTHON}"
        )
    return Surroundings(
        environment={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        worker_python=worker_python,
        log_directory=state_directory() / "logs",
        now=lambda: datetime.now(UTC),
        monotonic=time.monotonic,
        stop=stop,
    )


def state_directory() -> Path:
    """Where this machine keeps logs and Prefect's database: `.shunt` where one works."""
    return Path.cwd() / ".shunt"
