"""What a node says of itself: the source of live status, never of truth."""

import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict

from shunt import keys
from shunt.run.node_course import NodeCourse, NodeState
from shunt.store.errors import ObjectMissing
from shunt.store.protocol import Store

HEARTBEAT_S = 2.0
"""How often a worker, or a node of a plan, writes its status."""
SILENT_S = 15.0
"""Seven missed heartbeats: whoever waits for this one waits no longer."""
_FETCH_THREADS = 16
STARTING_S = 600.0
"""An engine that starts says nothing for minutes: it reads weights and compiles."""


class NodeStatus(BaseModel):
    """A node's heartbeat object. The node alone writes it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1] = 1
    node_id: str
    slot: str = ""
    """Of a node of the plan. Each of its workers has a status of its own: `keys.machine_of`."""
    done_parts: tuple[int, ...] = ()
    """Of a node of the plan: where pipelines begin on it whose work is done."""
    pid: int
    state: NodeState
    started_at: AwareDatetime
    updated_at: AwareDatetime
    fingerprint: str = ""
    exit_code: int | None = None
    detail: str = ""
    """What it is busy with, in words, where the state does not say it: weights being fetched."""
    failure: str = ""
    """Why it ended without having done its work, in one sentence with the remedy."""
    shards: dict[str, int] = {}
    """Shards held now, of an ended node those it gave back -> prompts of them that are terminal."""
    rows_finished: int = 0
    """Since this node started, as the two counts below."""
    rows_failed: int = 0
    output_tokens: int = 0
    """Tokens generated here and saved, without those taken over."""
    unsaved_tokens: int = 0
    """Generated here and not saved yet: what another node would have to generate again."""
    unsaved_rows: int = 0
    """Rows that have ended here and are not saved yet."""
    resumed_generations: int = 0
    resumed_tokens: int = 0
    """Tokens taken over instead of being generated again."""
    engine_deaths: int = 0
    segments: int = 0
    segment_bytes: int = 0
    running: int = 0
    """Requests in the engine."""
    prompt_tokens: int = 0
    """Of the rows that finished here, as the count below."""
    cached_tokens: int = 0
    """Prompt tokens that the engine's prefix cache had already."""
    course: NodeCourse = NodeCourse()
    """What it has been through since it started."""

    @property
    def tokens_made(self) -> int:
        """Here, with those that are not saved yet."""
        return self.output_tokens + self.unsaved_tokens

    def silent(self, now: datetime) -> bool:
        """Whether it has not been heard of for a while: for display, as clocks may differ."""
        limit_s = STARTING_S if self.state is NodeState.STARTING else SILENT_S
        return (now - self.updated_at).total_seconds() > limit_s


def worker_id(machine: str, part: int) -> str:
    """A new name for a worker of one part of a node of the plan: each start counts for itself."""
    return f"{machine}.{part}-{secrets.token_hex(3)}"


def write_status(store: Store, run_id: str, status: NodeStatus) -> None:
    key = keys.node(run_id, status.node_id)
    store.put(key, status.model_dump_json().encode())  # the node alone writes it


def write_failure(
    store: Store, run_id: str, node_id: str, *, pid: int, at: datetime, exit_code: int, failure: str
) -> None:
    """The last word of a node that ends before its worker could say anything itself."""
    known = read_status(store, run_id, node_id)
    status = NodeStatus(
        node_id=node_id, pid=pid, state=NodeState.ENDED, started_at=at, updated_at=at
    )
    write_status(
        store,
        run_id,
        (known or status).model_copy(
            update={
                "pid": pid,
                "state": NodeState.ENDED,
                "updated_at": at,
                "exit_code": exit_code,
                "failure": failure,
                "shards": {},
                "running": 0,
            }
        ),
    )


def read_status(store: Store, run_id: str, node_id: str) -> NodeStatus | None:
    """None where the node has not said anything yet."""
    try:
        raw = store.get(keys.node(run_id, node_id))
    except ObjectMissing:
        return None
    return NodeStatus.model_validate_json(raw)


def read_statuses(
    store: Store, run_id: str, *, ended: dict[str, NodeStatus] | None = None
) -> Iterator[NodeStatus]:
    """`ended` keeps, for whoever reads again, nodes that have said their last word, by key."""
    kept: dict[str, NodeStatus] = {} if ended is None else ended

    def read(key: str) -> NodeStatus:
        return kept.get(key) or NodeStatus.model_validate_json(store.get(key))

    names = list(store.list(keys.node_prefix(run_id)))
    with ThreadPoolExecutor(_FETCH_THREADS) as pool:
        found = list(pool.map(read, names))
    newest = max((status.updated_at for status in found), default=None)
    for key, status in zip(names, found, strict=True):
        # Its process may still add why it ended: not for longer than a silent one is waited for.
        if newest and status.state is NodeState.ENDED and status.silent(newest):
            kept[key] = status
        yield status
