"""The meter of a run: looks at its nodes and at the market, and says what they have cost so far."""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

from shunt import keys
from shunt.aws.api import AwsApi
from shunt.aws.money.bill import (
    CENT,
    PriceStep,
    Usage,
    by_pool,
    cost_usd,
    price_history,
    usages,
)
from shunt.aws.nodes.fleet import VISIBLE_WITHIN_S
from shunt.aws.nodes.intent import Outcome
from shunt.aws.nodes.pool import Pool
from shunt.errors import ShuntError
from shunt.run.node_status import NodeStatus
from shunt.run.spend import Spend, write_spend
from shunt.store.errors import ObjectMissing
from shunt.store.protocol import Store


class PriceUnknown(ShuntError):
    """A node lives in a pool whose price nobody told: a budget cannot be kept."""

    def __init__(self, pool: Pool) -> None:
        super().__init__(
            f"no price is known for {pool.market} {pool.instance_type} in {pool.zone}; EC2's "
            "price history did not have it. Give fleet.ec2.on_demand_usd_per_hour for on-demand"
        )
        self.pool = pool


_RATES_KEPT = timedelta(minutes=5)
"""Spot prices move slowly: a purchase is weighed by those of the last minutes."""
_PRICES_FINAL_AFTER = timedelta(minutes=15)
"""A price may be told some minutes after it came into force; then an ended node's cost stands."""


@dataclass(slots=True)
class Meter:
    """Two calls of EC2 per look. `now` is EC2's clock, as launches and ends are told by it."""

    ec2: AwsApi
    store: Store
    run_id: str
    on_demand_usd_per_hour: Mapping[str, Decimal]
    max_cost_usd: float | None
    now: Callable[[], datetime]
    launched: Callable[[], Iterable[Outcome]]
    """Every launch that the store knows of."""
    _rates: dict[Pool, Decimal] = field(default_factory=dict[Pool, Decimal])
    _rates_at: datetime | None = None
    _ended: dict[str, Usage] = field(default_factory=dict[str, Usage])
    _final_usd: dict[str, Decimal] = field(default_factory=dict[str, Decimal])

    def read(self) -> Spend:
        """Look and write down. Raises `PriceUnknown` and `AwsError`."""
        now = self.now()
        used = usages(self.ec2, self.store, self.run_id, now=now, ended=self._ended)
        used += self._unseen({usage.node_id for usage in used}, now)
        moving = [usage for usage in used if usage.node_id not in self._final_usd]
        prices = price_history(self.ec2, moving, now=now)
        rates = [self._rate(usage.pool, prices) for usage in moving]
        costs = dict(self._final_usd)
        for usage in moving:
            usd = costs[usage.node_id] = cost_usd(usage, prices, self.on_demand_usd_per_hour)
            if usage.node_id in self._ended and now - usage.end > _PRICES_FINAL_AFTER:
                self._final_usd[usage.node_id] = usd
        living = [rate for rate, usage in zip(rates, moving, strict=True) if usage.lives]
        spend = Spend(
            at=now,
            usd=sum(costs.values(), Decimal(0)).quantize(CENT),
            usd_per_hour=sum(living, Decimal(0)),
            num_nodes=len(living),
            num_launched=len(used),
            max_cost_usd=self.max_cost_usd,
            pools=by_pool(used, costs, self.on_demand_usd_per_hour),
        )
        write_spend(self.store, self.run_id, spend)
        return spend

    def dearest(self, pools: Sequence[Pool]) -> Decimal:
        """What a node costs an hour at most that is bought from one of these pools now. One call,
        unless it was made a while ago. Raises `PriceUnknown` and `AwsError`."""
        now = self.now()
        if self._rates_at is None or now - self._rates_at > _RATES_KEPT:
            self._rates, self._rates_at = {}, now
        if missing := [pool for pool in pools if pool not in self._rates]:
            asked = [Usage("", pool, now, now) for pool in missing]
            prices = price_history(self.ec2, asked, now=now)
            for pool in missing:
                with suppress(PriceUnknown):
                    self._rates[pool] = self._rate(pool, prices)
        known = [self._rates[pool] for pool in pools if pool in self._rates]
        if not known:
            raise PriceUnknown(pools[0])
        return max(known)

    def _unseen(self, seen: Container[str], now: datetime) -> Iterator[Usage]:
        """Nodes that EC2 does not list: those just launched, and those that ended so long ago that
        it has forgotten them, of which the last heartbeat is the best that is known."""
        for outcome in self.launched():
            if outcome.instance_id in seen:
                continue
            lives = (now - outcome.settled_at).total_seconds() < VISIBLE_WITHIN_S
            end = now if lives else self._last_heard(outcome)
            start = outcome.settled_at
            end = max(start, min(end, now))  # a heartbeat goes by its node's clock
            yield Usage(outcome.instance_id, outcome.pool, start, end, lives)

    def _last_heard(self, outcome: Outcome) -> datetime:
        try:
            raw = self.store.get(keys.node(self.run_id, outcome.instance_id))
        except ObjectMissing:
            return outcome.settled_at
        return NodeStatus.model_validate_json(raw).updated_at

    def _rate(self, pool: Pool, prices: Mapping[Pool, Sequence[PriceStep]]) -> Decimal:
        """What the pool costs now."""
        if pool.market == "on-demand" and pool.instance_type in self.on_demand_usd_per_hour:
            return self.on_demand_usd_per_hour[pool.instance_type]
        if pool.market == "spot" and prices.get(pool):
            return prices[pool][-1].usd_per_hour
        raise PriceUnknown(pool)
