"""Creating or updating the deployments on a Prefect server. Idempotent."""

import asyncio
from collections.abc import Iterable
from datetime import timedelta

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectNotFound
from prefect.flows import Flow
from prefect.schedules import Cron, Interval, Schedule

from deployments.catalogue import DEPLOYMENTS, ENTRYPOINT, REPOSITORY, WORK_POOL, Deployment
from shunt.job.job_file import load_job


def apply_deployments(deployments: Iterable[Deployment] = DEPLOYMENTS) -> list[str]:
    """Make the server's work pool and deployments as they are written here; returns their ids.

    The server is the one that `PREFECT_API_URL` names.
    """
    asyncio.run(_ensure_pool())
    return [_apply(deployment) for deployment in deployments]


def _apply(deployment: Deployment) -> str:
    flow = Flow.from_source(source=str(REPOSITORY), entrypoint=ENTRYPOINT)
    assert isinstance(flow, Flow)  # a coroutine only where an event loop runs already
    job = load_job(deployment.job_file).model_dump(mode="json", exclude_unset=True)
    return str(
        flow.deploy(
            name=deployment.name,
            description=deployment.description,
            work_pool_name=WORK_POOL,
            parameters={"job": job},
            schedules=_schedules(deployment),
            enforce_parameter_schema=True,
            concurrency_limit=None,
            print_next_steps=False,
            ignore_warnings=True,
        )
    )


def _schedules(deployment: Deployment) -> list[Schedule]:
    if deployment.cron is not None:
        return [Cron(deployment.cron, active=deployment.active)]
    if deployment.interval_s is not None:
        return [Interval(timedelta(seconds=deployment.interval_s), active=deployment.active)]
    return []


async def _ensure_pool() -> None:
    async with get_client() as client:
        try:
            await client.read_work_pool(WORK_POOL)
        except ObjectNotFound:
            await client.create_work_pool(WorkPoolCreate(name=WORK_POOL, type="process"))
