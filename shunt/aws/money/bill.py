"""What a run's nodes have cost so far: every second of every launch at the price in force.

The launches come from the store and from EC2, the spot prices from EC2's own history. Storage and
traffic are not in it. AWS does not charge for a spot node that it takes within its first hour; we
count it all the same, so the number is an upper bound there.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from pydantic import TypeAdapter

from shunt import keys
from shunt.aws.api import AwsApi
from shunt.aws.nodes.inventory import LIVING_STATES, describe_run
from shunt.aws.nodes.pool import Pool
from shunt.fleet.budget import BILLED_AT_LEAST_S
from shunt.run.spend import PoolSpend
from shunt.store.protocol import Store

CENT = Decimal("0.01")
_HISTORY_BEFORE = timedelta(days=1)
"""The price in force at a launch may have been set long before it; EC2 returns that one too."""


@dataclass(frozen=True, slots=True)
class Usage:
    """One node's time in a pool."""

    node_id: str
    pool: Pool
    start: datetime
    end: datetime
    """Now, while it lives."""
    lives: bool = False


_USAGE = TypeAdapter(Usage)


@dataclass(frozen=True, slots=True)
class PriceStep:
    at: datetime
    usd_per_hour: Decimal


def usages(
    ec2: AwsApi,
    store: Store,
    run_id: str,
    *,
    now: datetime,
    ended: dict[str, Usage] | None = None,
) -> list[Usage]:
    """The run's nodes. EC2 forgets a node about an hour after its end, so ended ones are written
    to the store; call it more often than that. `ended` spares whoever calls again reading them."""
    kept = {} if ended is None else ended
    if not kept:
        for key in store.list(keys.usage_prefix(run_id)):
            usage = _USAGE.validate_json(store.get(key))
            kept[usage.node_id] = usage
    living: list[Usage] = []
    for instance in describe_run(ec2, run_id):
        usage = _usage(instance, now)
        if usage.node_id in kept:
            continue
        if instance["State"]["Name"] == "terminated":
            store.put_if_absent(keys.usage(run_id, usage.node_id), _USAGE.dump_json(usage))
            kept[usage.node_id] = usage
        else:
            living.append(usage)
    return [*kept.values(), *living]


def price_history(
    ec2: AwsApi, used: Sequence[Usage], *, now: datetime
) -> dict[Pool, list[PriceStep]]:
    """Spot prices of the pools in use, oldest first."""
    types = sorted({usage.pool.instance_type for usage in used if usage.pool.market == "spot"})
    if not types:
        return {}
    params = {
        "InstanceTypes": types,
        "ProductDescriptions": ["Linux/UNIX"],
        "StartTime": min(usage.start for usage in used) - _HISTORY_BEFORE,
        "EndTime": now,
    }
    found: dict[Pool, list[PriceStep]] = {}
    for row in ec2.pages("describe_spot_price_history", params, "SpotPriceHistory"):
        pool = Pool(row["InstanceType"], row["AvailabilityZone"], "spot")
        found.setdefault(pool, []).append(PriceStep(row["Timestamp"], Decimal(row["SpotPrice"])))
    for steps in found.values():
        steps.sort(key=lambda step: step.at)
    return found


def spend_usd(
    used: Sequence[Usage],
    prices: Mapping[Pool, Sequence[PriceStep]],
    on_demand_usd_per_hour: Mapping[str, Decimal],
) -> Decimal:
    """The bill in dollars, to the cent. KeyError where a pool has no price: never a silent zero."""
    total = sum((cost_usd(usage, prices, on_demand_usd_per_hour) for usage in used), Decimal(0))
    return total.quantize(CENT)


def cost_usd(
    usage: Usage,
    prices: Mapping[Pool, Sequence[PriceStep]],
    on_demand_usd_per_hour: Mapping[str, Decimal],
) -> Decimal:
    """Of one node, exact. KeyError where its pool has no price."""
    end = _billed_end(usage)
    if usage.pool.market == "on-demand":
        return on_demand_usd_per_hour[usage.pool.instance_type] * _hours(usage.start, end)
    steps = prices[usage.pool]
    total = Decimal(0)
    for number, step in enumerate(steps):
        begins = usage.start if number == 0 else max(step.at, usage.start)
        until = steps[number + 1].at if number + 1 < len(steps) else end
        ends = min(until, end)
        if ends > begins:
            total += step.usd_per_hour * _hours(begins, ends)
    return total


def by_pool(
    used: Sequence[Usage],
    costs: Mapping[str, Decimal],
    on_demand_usd_per_hour: Mapping[str, Decimal],
) -> tuple[PoolSpend, ...]:
    """The bill pool by pool, the dearest first. `costs`: of each node, in dollars."""
    pools: dict[Pool, list[Usage]] = {}
    for usage in used:
        pools.setdefault(usage.pool, []).append(usage)
    found: list[PoolSpend] = []
    for pool, nodes in pools.items():
        hours = sum((_hours(node.start, _billed_end(node)) for node in nodes), Decimal(0))
        price = on_demand_usd_per_hour.get(pool.instance_type)
        found.append(
            PoolSpend(
                instance_type=pool.instance_type,
                zone=pool.zone,
                market=pool.market,
                num_nodes=len(nodes),
                node_hours=float(hours),
                usd=sum((costs[node.node_id] for node in nodes), Decimal(0)).quantize(CENT),
                on_demand_usd=None if price is None else (price * hours).quantize(CENT),
            )
        )
    return tuple(sorted(found, key=lambda pool: (-pool.usd, pool.instance_type, pool.zone)))


def _billed_end(usage: Usage) -> datetime:
    return max(usage.end, usage.start + timedelta(seconds=BILLED_AT_LEAST_S))


def _hours(start: datetime, end: datetime) -> Decimal:
    """EC2 bills whole seconds."""
    return Decimal((end - start) // timedelta(seconds=1)) / Decimal(3600)


def _usage(instance: Mapping[str, Any], now: datetime) -> Usage:
    pool = Pool(
        instance["InstanceType"],
        instance["Placement"]["AvailabilityZone"],
        "spot" if instance.get("InstanceLifecycle") == "spot" else "on-demand",
    )
    start: datetime = instance["LaunchTime"]
    lives = instance["State"]["Name"] in LIVING_STATES
    return Usage(instance["InstanceId"], pool, start, _end(instance) or now, lives)


def _end(instance: Mapping[str, Any]) -> datetime | None:
    """`StateTransitionReason` carries the instant of the end; a field of the API, not a log."""
    told = re.search(r"\((\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) GMT\)", instance["StateTransitionReason"])
    if told is None:
        return None
    return datetime.strptime(told[1], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
