"""Making a Prefect server's work pools, deployments and automations as a file says. Idempotent.

What people switch on the page stays as they left it: whether a schedule is on, a pool's limits.
"""

from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.utilities.callables import parameter_schema

from flows.prefect.automations import apply_automations
from flows.prefect.deployment_file import Deployment, DeploymentFile, Pool
from flows.prefect.form import form_of
from flows.prefect.generate_form import generate
from flows.surroundings import REPOSITORY
from shunt.errors import JobError
from shunt.job.job_file import load_job

ENTRYPOINT = "flows/prefect/generate_form.py:generate"
_SLUG = "shunt"
_QUIET = {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}


def apply_deployments(file: DeploymentFile, directory: Path) -> list[str]:
    """On the server that `PREFECT_API_URL` names; returns a line for each thing that is there now.

    `directory`: of the file. Raises `JobError` for what the server refuses, or a job file that is
    wrong.
    """
    try:
        with get_client(sync_client=True) as client:
            told = [_apply_pool(client, pool) for pool in file.pools]
            flow_id = client.create_flow(generate)
            for deployment in file.deployments:
                pool = file.pool_of(deployment)
                told.append(_apply(client, flow_id, deployment, pool, directory))
            return [*told, *apply_automations(client, file.automations)]
    except httpx.HTTPStatusError as error:
        why = error.response.text
        raise JobError(f"Prefect's server refused a deployment: {why[:500]}") from error
    except (httpx.HTTPError, PrefectException) as error:
        raise JobError(
            f"Prefect's server is not to be reached or refuses: {error}. Start one with `make ui` "
            "or `prefect server start`, or set PREFECT_API_URL"
        ) from error


def _apply_pool(client: SyncPrefectClient, pool: Pool) -> str:
    try:
        found = client.read_work_pool(pool.name)
    except ObjectNotFound:
        template = _template_of(client, pool.type)
        client.create_work_pool(
            WorkPoolCreate(name=pool.name, type=pool.type, base_job_template=template)
        )
        return f"pool {pool.name} ({pool.type}): made"
    if found.type != pool.type:
        raise JobError(
            f"pool {pool.name} is a {found.type} pool on the server, and a {pool.type} pool in the "
            "file: give it another name"
        )
    return f"pool {pool.name} ({pool.type}): is there"


def _template_of(client: SyncPrefectClient, kind: str) -> dict[str, Any]:
    """The one that Prefect ships for this kind of infrastructure."""
    collections = client.read_worker_metadata()
    for kinds in collections.values():
        if kind in kinds:
            return kinds[kind]["default_base_job_configuration"]
    raise JobError(f"Prefect's server knows no work pool of type {kind}")


def _apply(
    client: SyncPrefectClient, flow_id: Any, deployment: Deployment, pool: Pool, directory: Path
) -> str:
    job = load_job(directory / deployment.job)
    schedules, switched = _schedules(client, deployment)
    client.create_deployment(
        flow_id=flow_id,
        name=deployment.name,
        description=deployment.description,
        work_pool_name=pool.name,
        entrypoint=ENTRYPOINT,
        path=None,
        pull_steps=[_enter(pool.directory or str(REPOSITORY))],
        parameters=form_of(job.model_dump(mode="json", by_alias=True, exclude_unset=True)),
        parameter_openapi_schema=parameter_schema(generate).model_dump_for_openapi(),
        enforce_parameter_schema=True,
        # One flow run of a job at a time: the others wait, and find the work done.
        concurrency_limit=1,
        concurrency_options=ConcurrencyOptions(collision_strategy=ConcurrencyLimitStrategy.ENQUEUE),
        schedules=schedules,
        job_variables=_job_variables(pool, deployment),
        tags=[f"job:{job.name}"],
    )
    return f"deployment {deployment.name}{switched}: applied"


def _enter(directory: str) -> dict[str, Any]:
    return {"prefect.deployments.steps.set_working_directory": {"directory": directory}}


def _job_variables(pool: Pool, deployment: Deployment) -> dict[str, Any]:
    where = pool.directory or str(REPOSITORY)
    image = {} if pool.type == "process" else {"image": pool.image}
    env = {"PYTHONPATH": where, **_QUIET, **deployment.env}
    return {**pool.variables, **image, "env": env}


def _schedules(
    client: SyncPrefectClient, deployment: Deployment
) -> tuple[list[DeploymentScheduleCreate], str]:
    """The schedule, switched as it is on the server, and words for it."""
    schedule = None
    if deployment.cron is not None:
        schedule = CronSchedule(cron=deployment.cron, timezone=deployment.timezone)
    elif deployment.interval_s is not None:
        schedule = IntervalSchedule(interval=timedelta(seconds=deployment.interval_s))
    if schedule is None:
        return [], ""
    active = deployment.active
    try:
        there = client.read_deployment_by_name(f"{generate.name}/{deployment.name}")
        active = next((s.active for s in there.schedules if s.slug == _SLUG), active)
    except ObjectNotFound:
        pass
    made = DeploymentScheduleCreate(schedule=schedule, active=active, slug=_SLUG)
    when = deployment.cron or f"every {deployment.interval_s:g} s"
    return [made], f" ({when}{'' if active else ', switched off'})"
