"""What happens to a run, as events of Prefect that automations can act on. Bounded in number.

| event | when |
|---|---|
| `shunt.worker.started`, `shunt.worker.interrupted` | a node was launched, taken or lost |
| `shunt.shard.resumed` | a shard went on in another worker |
| `shunt.market.changed` | nodes are bought in another market, or by another plan |
| `shunt.run.progressed` | now and then, while tokens are made |
| `shunt.limit.reached` | the budget or the deadline ended the run for now |
| `shunt.run.ended` | however it ended; the payload says how |

The resource of each is the run, the flow run and its deployment are related to it.
"""

import hashlib
import logging
from collections.abc import Mapping
from datetime import datetime, timedelta
from uuid import UUID

from prefect.events import emit_event
from prefect.runtime import deployment, flow_run

from shunt.run.event import Event, EventKind
from shunt.run.status import RunStatus

MOST_OF_A_KIND = 300
"""Of one flow run. Prefect's server drops events of a burst of thousands, also those of others."""
PROGRESS_EVERY = timedelta(minutes=5)
_NAMES = {
    EventKind.WORKER_STARTED: "shunt.worker.started",
    EventKind.INTERRUPTED: "shunt.worker.interrupted",
    EventKind.SHARD_RESUMED: "shunt.shard.resumed",
    EventKind.MARKET: "shunt.market.changed",
}

log = logging.getLogger(__name__)


class RunEvents:
    """Emits what is new in the timeline of a run, from the beginning of this flow run on."""

    def __init__(self, run_id: str, began: datetime) -> None:
        self._run_id = run_id
        self._began = began
        self._told: set[str] = set()
        self._counts: dict[str, int] = {}
        self._tokens = 0
        self._progress_at = began
        self._related = _related()

    def seen(self, status: RunStatus) -> None:
        """Emit what this look has news of."""
        for event in status.events:
            name = _NAMES.get(event.kind)
            if name is None or event.at < self._began:
                continue
            identity = event.model_dump_json()
            if identity in self._told:
                continue
            self._told.add(identity)
            self._emit(name, _payload(event), identity, at=event.at)
        if status.output_tokens > self._tokens and status.read_at >= self._progress_at:
            self._progress_at = status.read_at + PROGRESS_EVERY
            counts = {"rows_ended": status.rows_terminal, "rows": status.rows_total}
            self._emit("shunt.run.progressed", counts, f"{status.read_at}", at=status.read_at)
        self._tokens = max(self._tokens, status.output_tokens)

    def limit_reached(self, reason: str, at: datetime) -> None:
        self._emit("shunt.limit.reached", {"reason": reason}, f"limit {at}", at=at)

    def ended(self, how: str, reason: str, at: datetime) -> None:
        """`how`: the name of the flow run's last state."""
        self._emit("shunt.run.ended", {"how": how, "reason": reason}, f"ended {at}", at=at)

    def _emit(self, name: str, payload: Mapping[str, object], identity: str, at: datetime) -> None:
        count = self._counts[name] = self._counts.get(name, 0) + 1
        if count > MOST_OF_A_KIND:
            if count == MOST_OF_A_KIND + 1:
                log.warning("more than %d events %s: no more are sent", MOST_OF_A_KIND, name)
            return
        digest = hashlib.sha256(f"{self._run_id} {name} {identity}".encode()).digest()
        emit_event(
            name,
            resource={
                "prefect.resource.id": f"shunt.run.{self._run_id}",
                "prefect.resource.name": self._run_id,
            },
            occurred=at,
            related=self._related,
            payload=dict(payload),
            id=UUID(bytes=digest[:16]),
        )


def _payload(event: Event) -> dict[str, object]:
    fields = event.model_dump(mode="json", include={"node_id", "slot", "shard_id", "num_tokens"})
    return {**{name: value for name, value in fields.items() if value}, "detail": event.detail}


def _related() -> list[dict[str, str]]:
    found = (("flow-run", flow_run.get_id()), ("deployment", deployment.get_id()))
    return [
        {"prefect.resource.id": f"prefect.{role}.{name}", "prefect.resource.role": role}
        for role, name in found
        if name
    ]
