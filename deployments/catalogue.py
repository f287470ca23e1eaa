"""The deployments there are: which flow, when, with which parameters."""

from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
WORK_POOL = "shunt-local"
ENTRYPOINT = "flows/prefect/generate.py:generate"


@dataclass(frozen=True, slots=True)
class Deployment:
    """One deployment. Its parameters are the job, so the page shows a form that checks it."""

    name: str
    description: str
    job_file: Path
    cron: str | None = None
    interval_s: float | None = None
    active: bool = True


DEPLOYMENTS = (
    Deployment(
        name="ad-hoc",
        description="Run a batch now: fill in the job, press Run.",
        job_file=REPOSITORY / "examples/demo.yaml",
    ),
    Deployment(
        name="nightly",
        description="Generates what is new at two in the morning. Paused until you switch it on.",
        job_file=REPOSITORY / "examples/demo.yaml",
        cron="0 2 * * *",
        active=False,
    ),
)
