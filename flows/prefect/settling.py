"""Setting right what Prefect shows of flow runs whose process was killed: from the store.

The next flow run of the same run does it, `shunt status`, and the sweep beside a Prefect worker.
"""

import json
import logging
from datetime import datetime
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterKey,
    FlowRunFilter,
    FlowRunFilterId,
)
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed

from flows.drive.drive import go_on_command, results_of
from flows.prefect.shard_table import artifact_key, shard_table
from shunt.run.manifest import Manifest, read_manifest
from shunt.run.showing import Showing, read_showings, write_showing
from shunt.run.status import RunState, RunStatus, StatusReader
from shunt.store.protocol import Store

log = logging.getLogger(__name__)


def settle(store: Store, run_id: str, *, now: datetime) -> int:
    """Flow runs, their task runs and shard tables that were left behind, on the server that
    `PREFECT_API_URL` names; returns how many flow runs. Raises what Prefect's client raises.

    Setting right what is right already changes nothing, so two may do it at once.
    """
    left = [showing for showing in read_showings(store, run_id) if showing.is_left_behind(now)]
    if not left:
        return 0
    manifest, status = read_manifest(store, run_id), StatusReader(store, run_id).read()
    settled = 0
    with get_client(sync_client=True) as client:
        for showing in left:
            try:
                _settle(client, showing, manifest, status)
            except ObjectNotFound:  # of another server
                continue
            write_showing(store, run_id, showing.model_copy(update={"ended": True}))
            settled += 1
            log.info("flow run %s was left behind; it is shown as crashed", showing.flow_run_id)
    return settled


def _settle(
    client: SyncPrefectClient, showing: Showing, manifest: Manifest, status: RunStatus
) -> None:
    flow_run_id = UUID(showing.flow_run_id)
    state = client.read_flow_run(flow_run_id).state
    told = _told(showing, manifest, status)
    if state is None or not state.is_final() or state.is_crashed():
        client.set_flow_run_state(flow_run_id, Crashed(message=told), force=True)
    of_it = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))
    for task_run in client.read_task_runs(flow_run_filter=of_it):
        if task_run.state is None or not task_run.state.is_final():
            crashed = Crashed(message=told)
            client.set_task_run_state(task_run.id, crashed, force=True)
    for artifact in client.read_artifacts(
        artifact_filter=ArtifactFilter(
            key=ArtifactFilterKey(any_=[artifact_key("shards", manifest.run_id)]),
            flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run_id]),
        )
    ):
        table = json.dumps(shard_table(status))
        client.update_artifact(artifact.id, ArtifactUpdate(data=table))


def _told(showing: Showing, manifest: Manifest, status: RunStatus) -> str:
    place = showing.place
    ended = f"The process of this flow run ({place.pid} on {place.host}) was killed"
    if status.state is RunState.COLLECTED:
        return f"{ended}. The run was finished since: {results_of(manifest)}"
    return f"{ended}; everything saved is safe. Go on with: {go_on_command(manifest)}"
