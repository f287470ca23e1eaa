"""The timeline of a run: what happened to its workers and shards, as small immutable objects."""

import uuid
from enum import StrEnum
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict

from shunt import keys
from shunt.store.protocol import Store


class EventKind(StrEnum):
    WORKER_STARTED = "worker_started"
    WORKER_ENDED = "worker_ended"
    NOT_LAUNCHED = "not_launched"
    """No capacity or quota for a slot; other pools and later tries follow."""
    INTERRUPTED = "interrupted"
    """A worker was told to go, or was found dead."""
    SHARD_RESUMED = "shard_resumed"
    """A shard changed hands and its generations were taken over."""
    SHARD_CORRUPT = "shard_corrupt"
    """A stored object of a shard contradicts itself; the shard is left alone."""
    FENCED = "fenced"
    ENGINE_DIED = "engine_died"
    PROMPT_ISOLATED = "prompt_isolated"
    UNLIKE_PLAN = "unlike_plan"
    """Something is not as the plan said, such as the size of the KV cache."""
    COLD_START = "cold_start"
    """A process of an engine was started without the warm process, and why."""
    REBALANCE = "rebalance"
    """The provider advised to leave a node; the policy is to wait for a notice."""
    MARKET = "market"
    """From now on nodes are bought in another market, or by another plan."""
    FLEET_ENDED = "fleet_ended"
    """Nothing of the run is left in the account."""
    STORE_AWAY = "store_away"
    """The controller did not reach the store, or reaches it again."""
    STOPPED = "stopped"
    """The driver left before the end: Ctrl-C, or a limit; `detail` says which."""
    COLLECTED = "collected"
    CANCELLED = "cancelled"


class Event(BaseModel):
    """One entry of the timeline."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1] = 1
    at: AwareDatetime
    kind: EventKind
    node_id: str = ""
    slot: str = ""
    """The place that the node fills, where the controller tells."""
    shard_id: str = ""
    detail: str = ""
    """A sentence for people."""
    num_tokens: int = 0
    """Tokens taken over, where a shard was resumed."""


def record(store: Store, run_id: str, event: Event) -> None:
    """Add to the timeline. Written once under a fresh name, so no two writers meet."""
    instant = event.at.strftime("%Y%m%dT%H%M%S.%fZ")
    key = keys.event(run_id, instant, uuid.uuid4().hex[:8])
    store.put_if_absent(key, event.model_dump_json().encode())


def read_events(store: Store, run_id: str, *, into: dict[str, Event]) -> None:
    """Add the events that `into` does not have yet, by their key, which sorts by time."""
    for key in store.list(keys.event_prefix(run_id)):
        if key not in into:
            into[key] = Event.model_validate_json(store.get(key))
