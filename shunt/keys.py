"""The name of every durable object, in one place.

```
runs/store-check                                          created if absent: whether that holds
runs/{run_id}/manifest.json                               immutable
runs/{run_id}/plans/{version}.json                        immutable, numbered
runs/{run_id}/jobs/{version}.json                         immutable, numbered: what nodes go by
runs/{run_id}/shards/{shard_id}/prompts.arrow             immutable
runs/{run_id}/shards/{shard_id}/leases/{epoch}.json       created if absent: one winner per epoch
runs/{run_id}/shards/{shard_id}/leases/{epoch}.heartbeat  overwritten by its owner alone
runs/{run_id}/shards/{shard_id}/segments/{epoch}-{sequence}.seg   created if absent
runs/{run_id}/done/{shard_id}.json                        created if absent: a hint, the log decides
runs/{run_id}/nodes/{node_id}.json                        overwritten by its node alone
runs/{run_id}/gone/{node_id}                              created if absent, by who saw it end
runs/{run_id}/seats/{slot}/{node_id}.json                 created if absent, by its node
runs/{run_id}/launches/{place}/{number}.json              created if absent, by a pipeline's head
runs/{run_id}/events/{instant}-{event_id}.json            created if absent
runs/{run_id}/orders/{number}.json                        created if absent: cancel, or carry on
runs/{run_id}/intents/{slot}/{number}.json                created if absent, before a launch
runs/{run_id}/intents/{slot}/{number}.outcome.json        created if absent, after it
runs/{run_id}/usage/{node_id}.json                        created if absent, when a node has ended
runs/{run_id}/drivers/{epoch}.json                        created if absent: one winner per epoch
runs/{run_id}/driver.json                                 overwritten by the run's driver alone
runs/{run_id}/shown/{flow_run_id}.json                    overwritten by the flow run's process
runs/{run_id}/spend.json                                  overwritten by the run's controller alone
runs/{run_id}/report.html                                 overwritten: made anew of the same facts
runs/{run_id}/results/...                                 written once by collect
runs/{run_id}/reuse.json                                  created if absent, before the shards
runs/known/{name}/{run_id}/{part}-of-{parts}.keys         created if absent, after the shards
runs/known/{name}/{run_id}/unanswered                     created if absent by collect
```

Numbers are padded with zeros, so that a sorted listing is in numeric order.
"""

from typing import NamedTuple

STORE_CHECK = "runs/store-check"


def manifest(run_id: str) -> str:
    return f"runs/{run_id}/manifest.json"


def plan_prefix(run_id: str) -> str:
    return f"runs/{run_id}/plans/"


def plan(run_id: str, version: int) -> str:
    return f"{plan_prefix(run_id)}{version:06d}.json"


def job_prefix(run_id: str) -> str:
    return f"runs/{run_id}/jobs/"


def job(run_id: str, version: int) -> str:
    return f"{job_prefix(run_id)}{version:06d}.json"


def shard_prompts(run_id: str, shard_id: str) -> str:
    return f"runs/{run_id}/shards/{shard_id}/prompts.arrow"


def lease_prefix(run_id: str, shard_id: str) -> str:
    return f"runs/{run_id}/shards/{shard_id}/leases/"


def lease(run_id: str, shard_id: str, epoch: int) -> str:
    return f"{lease_prefix(run_id, shard_id)}{epoch:06d}.json"


def lease_heartbeat(run_id: str, shard_id: str, epoch: int) -> str:
    return f"{lease_prefix(run_id, shard_id)}{epoch:06d}.heartbeat"


def lease_epoch(key: str) -> int | None:
    """Epoch of a lease key, or None for another key of the lease prefix (a heartbeat)."""
    name = key.rsplit("/", 1)[-1]
    return int(name.removesuffix(".json")) if name.endswith(".json") else None


def heartbeat_epoch(key: str) -> int:
    return int(key.rsplit("/", 1)[-1].removesuffix(".heartbeat"))


def segment_prefix(run_id: str, shard_id: str) -> str:
    return f"runs/{run_id}/shards/{shard_id}/segments/"


def segment(run_id: str, shard_id: str, position: "Position") -> str:
    name = f"{position.epoch:06d}-{position.sequence:06d}.seg"
    return segment_prefix(run_id, shard_id) + name


class Position(NamedTuple):
    """Where a segment stands in the checkpoint log of its shard."""

    epoch: int
    sequence: int


def segment_position(key: str) -> Position:
    epoch, sequence = key.rsplit("/", 1)[-1].removesuffix(".seg").split("-")
    return Position(int(epoch), int(sequence))


def done_prefix(run_id: str) -> str:
    return f"runs/{run_id}/done/"


def done(run_id: str, shard_id: str) -> str:
    return f"{done_prefix(run_id)}{shard_id}.json"


def node_prefix(run_id: str) -> str:
    return f"runs/{run_id}/nodes/"


def node(run_id: str, node_id: str) -> str:
    return f"{node_prefix(run_id)}{node_id}.json"


def gone_prefix(run_id: str) -> str:
    return f"runs/{run_id}/gone/"


def gone(run_id: str, node_id: str) -> str:
    return f"{gone_prefix(run_id)}{node_id}"


def machine_of(node_id: str) -> str:
    """The machine that a worker runs on: several workers of one are named `{machine}.{part}`."""
    return node_id.split(".", 1)[0]


def seat_prefix(run_id: str, slot: str) -> str:
    return f"runs/{run_id}/seats/{slot}/"


def seat(run_id: str, slot: str, node_id: str) -> str:
    return f"{seat_prefix(run_id, slot)}{node_id}.json"


def launch_prefix(run_id: str, place: str) -> str:
    return f"runs/{run_id}/launches/{place}/"


def launch(run_id: str, place: str, number: int) -> str:
    return f"{launch_prefix(run_id, place)}{number:06d}.json"


def event_prefix(run_id: str) -> str:
    return f"runs/{run_id}/events/"


def event(run_id: str, instant: str, event_id: str) -> str:
    """`instant` is a compact UTC timestamp, so that a listing is in time order."""
    return f"{event_prefix(run_id)}{instant}-{event_id}.json"


def order_prefix(run_id: str) -> str:
    return f"runs/{run_id}/orders/"


def order(run_id: str, number: int) -> str:
    return f"{order_prefix(run_id)}{number:06d}.json"


def number(key: str) -> int:
    """Of a plan, a job, a launch, an order or a driver."""
    return int(key.rsplit("/", 1)[-1].removesuffix(".json"))


OUTCOME_SUFFIX = ".outcome.json"


def intent_prefix(run_id: str) -> str:
    return f"runs/{run_id}/intents/"


def intent(run_id: str, slot: str, number: int) -> str:
    return f"{intent_prefix(run_id)}{slot}/{number:06d}.json"


def intent_outcome(run_id: str, slot: str, number: int) -> str:
    return f"{intent_prefix(run_id)}{slot}/{number:06d}{OUTCOME_SUFFIX}"


def usage_prefix(run_id: str) -> str:
    return f"runs/{run_id}/usage/"


def usage(run_id: str, node_id: str) -> str:
    return f"{usage_prefix(run_id)}{node_id}.json"


def driver_prefix(run_id: str) -> str:
    return f"runs/{run_id}/drivers/"


def driver(run_id: str, epoch: int) -> str:
    return f"{driver_prefix(run_id)}{epoch:06d}.json"


def driver_beat(run_id: str) -> str:
    return f"runs/{run_id}/driver.json"


def spend(run_id: str) -> str:
    return f"runs/{run_id}/spend.json"


def showing_prefix(run_id: str) -> str:
    return f"runs/{run_id}/shown/"


def showing(run_id: str, flow_run_id: str) -> str:
    return f"{showing_prefix(run_id)}{flow_run_id}.json"


def report(run_id: str) -> str:
    return f"runs/{run_id}/report.html"


def result(run_id: str, name: str) -> str:
    return f"runs/{run_id}/results/{name}"


def reuse(run_id: str) -> str:
    """What the run takes answers from, settled when it is prepared."""
    return f"runs/{run_id}/reuse.json"


def known_prefix(name: str) -> str:
    """Of the keys of all rows that runs of this name have generated."""
    return f"runs/known/{name}/"


def known_part(name: str, run_id: str, part: int, num_parts: int) -> str:
    return f"{known_prefix(name)}{run_id}/{part:05d}-of-{num_parts:05d}.keys"


def unanswered(name: str, run_id: str) -> str:
    """Says that the run is finished, and which rows of it have no answer."""
    return f"{known_prefix(name)}{run_id}/unanswered"
