"""What a pool has and costs at an instant: schedules that a test or a trace sets."""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

from shunt.aws.nodes.pool import Pool

UNLIMITED = 1_000_000


@dataclass(slots=True)
class Steps:
    """A step function of time: the value of the last step at or before an instant."""

    at: list[datetime] = field(default_factory=list[datetime])
    values: list[Decimal] = field(default_factory=list[Decimal])

    def set(self, at: datetime, value: Decimal | int | str) -> None:
        position = bisect.bisect_right(self.at, at)
        self.at.insert(position, at)
        self.values.insert(position, Decimal(value))

    def value(self, at: datetime, default: Decimal) -> Decimal:
        position = bisect.bisect_right(self.at, at)
        return self.values[position - 1] if position else default

    def between(self, start: datetime, end: datetime) -> Sequence[tuple[datetime, Decimal]]:
        """The steps in the span, and the one in force at its start."""
        first = max(0, bisect.bisect_right(self.at, start) - 1)
        return [(a, v) for a, v in zip(self.at, self.values, strict=True) if a <= end][first:]


@dataclass(slots=True)
class Market:
    """Capacity per pool (unlimited unless set), spot and on-demand prices, vCPU quotas."""

    capacity: dict[Pool, Steps] = field(default_factory=dict[Pool, Steps])
    prices: dict[Pool, Steps] = field(default_factory=dict[Pool, Steps])
    default_usd_per_hour: Decimal = Decimal("1.0")
    quotas: dict[str, float] = field(default_factory=dict[str, float])
    """By the name of the service quota, in vCPUs."""
    vcpus: dict[str, int] = field(default_factory=dict[str, int])
    """Per instance type; 8 where unknown."""

    def set_capacity(self, pool: Pool, at: datetime, nodes: int) -> None:
        self.capacity.setdefault(pool, Steps()).set(at, nodes)

    def set_price(self, pool: Pool, at: datetime, usd_per_hour: Decimal | str) -> None:
        self.prices.setdefault(pool, Steps()).set(at, usd_per_hour)

    def capacity_at(self, pool: Pool, at: datetime) -> int:
        steps = self.capacity.get(pool)
        return int(steps.value(at, Decimal(UNLIMITED))) if steps else UNLIMITED

    def price_at(self, pool: Pool, at: datetime) -> Decimal:
        steps = self.prices.get(pool)
        return steps.value(at, self.default_usd_per_hour) if steps else self.default_usd_per_hour

    def cost(self, pool: Pool, start: datetime, end: datetime) -> Decimal:
        """What EC2 would bill: every second at the price in force in that second (spot), or at the
        one price of the pool (on-demand, the price at launch)."""
        if pool.market == "on-demand" or pool not in self.prices:
            return self.price_at(pool, start) * _hours(start, end)
        total = Decimal(0)
        steps = [(max(at, start), v) for at, v in self.prices[pool].between(start, end)]
        if not steps or steps[0][0] > start:
            steps = [(start, self.default_usd_per_hour), *steps]
        ends = [at for at, _ in steps[1:]] + [end]
        for (at, usd), until in zip(steps, ends, strict=True):
            total += usd * _hours(at, until)
        return total


def _hours(start: datetime, end: datetime) -> Decimal:
    return Decimal((end - start) // timedelta(seconds=1)) / Decimal(3600)
