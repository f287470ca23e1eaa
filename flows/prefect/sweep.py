"""The sweep: every flow run that a server shows as going on, looked at in the store of its run."""

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from pydantic import ValidationError

from flows.prefect.form import job_of_parameters
from flows.prefect.settling import settle
from shunt.errors import RunMissing, ShuntError
from shunt.job.job import Job
from shunt.store.config import StoreConfig, open_configured_store

_GOING_ON = [StateType.RUNNING, StateType.CRASHED, StateType.CANCELLING]
_MOST = 100
_TAG = "run:"

log = logging.getLogger(__name__)


def sweep_up(environment: Mapping[str, str], *, now: datetime) -> list[str]:
    """Settle the runs of the latest flow runs that go on, or were seen to crash; returns a line
    for each run that was set right. Raises what Prefect's client raises."""
    state = FlowRunFilterState(type=FlowRunFilterStateType(any_=_GOING_ON))
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs(flow_run_filter=FlowRunFilter(state=state), limit=_MOST)
    runs: dict[str, StoreConfig] = {}
    for flow_run in found:
        run_id = next((t.removeprefix(_TAG) for t in flow_run.tags if t.startswith(_TAG)), "")
        store = _store_of(flow_run) if run_id else None
        if store is not None:
            runs[run_id] = store
    told: list[str] = []
    for run_id, store in runs.items():
        try:
            settled = settle(open_configured_store(store, environment=environment), run_id, now=now)
        except RunMissing:
            continue  # its store was purged
        if settled:
            told.append(f"{run_id}: {settled} killed flow runs are shown as crashed")
    return told


def _store_of(flow_run: FlowRun) -> StoreConfig | None:
    """By the parameters of the flow run; None where they say none that can be opened here."""
    parameters: dict[str, Any] = flow_run.parameters
    try:
        if "job" in parameters:
            return Job.model_validate(parameters["job"]).store
        return job_of_parameters(parameters).store
    except (ValidationError, ShuntError) as error:
        log.warning("flow run %s: its job cannot be read: %s", flow_run.name, error)
        return None
