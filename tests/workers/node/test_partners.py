"""A head watches the nodes of its pipeline on, whatever the store says meanwhile."""

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from shunt.plan.plan import Pipeline
from shunt.plan.seat import Seat, take_seat
from shunt.run.node_status import NodeState, NodeStatus, write_status
from shunt.store.errors import StoreDenied
from shunt.testing.memory_store import MemoryStore
from workers.node.partners import Partners

RUN = "small-0123456789ab"
START = datetime(2026, 1, 1, tzinfo=UTC)
PIPELINE = Pipeline.model_validate(
    {
        "name": "p0",
        "max_num_seqs": 8,
        "predicted_requests_per_s": 1.0,
        "stages": [
            {"slot": "head", "tp": 1, "first_layer": 0, "end_layer": 1},
            {"slot": "rest", "tp": 1, "first_layer": 1, "end_layer": 2},
        ],
    }
)


class Refusing(MemoryStore):
    """A role that lapsed: every call is refused for so many times."""

    times = 0

    def list(self, prefix: str) -> Iterator[str]:
        if self.times:
            self.times -= 1
            raise StoreDenied("the token has expired", key=prefix)
        return super().list(prefix)


def say(store: MemoryStore, beat: int, state: NodeState = NodeState.RUNNING) -> None:
    at = START + timedelta(seconds=beat)
    status = NodeStatus(
        node_id="b", slot="rest", pid=1, state=state, started_at=START, updated_at=at
    )
    write_status(store, RUN, status)


async def test_a_refusal_of_the_store_blinds_no_head_for_good() -> None:
    store = Refusing()
    head, rest = (Seat(slot=s, node_id=n, address="127.0.0.1") for s, n in
                  (("head", "a"), ("rest", "b")))  # fmt: skip
    for seat in (head, rest):
        take_seat(store, RUN, seat)
    partners = Partners(store, RUN, "a.0", PIPELINE, own=head, monotonic=time.monotonic)
    say(store, 0)
    gathering = asyncio.create_task(partners.gather())
    for beat in range(1, 600):
        say(store, beat)
        if gathering.done():
            break
        await asyncio.sleep(0.1)
    assert (await gathering).keys() == {"head", "rest"}

    store.times = 3
    watching = asyncio.create_task(partners.until_one_is_lost())
    while store.times:
        assert not watching.done()
        await asyncio.sleep(0.1)
    say(store, 1000, NodeState.DRAINING)
    assert "node b of the pipeline is leaving" in await asyncio.wait_for(watching, 60)
