"""The money of a run: what it has spent, what it may still buy, in which market, and until when."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from shunt.aws.money.meter import Meter, PriceUnknown
from shunt.aws.nodes.pool import SlotSpec
from shunt.fleet.budget import Standing, Verdict, num_affordable, verdict
from shunt.job.job import Ec2, Limits
from shunt.run.event import EventKind
from shunt.run.spend import Spend
from shunt.store.patience import AWAY

EXPIRY_MARGIN = timedelta(minutes=10)
"""The controller ends nodes at the deadline; the deadline tag is for when there is none."""
DRAIN_S = 120.0
"""A node that ends itself drains first, at its full price."""
GIVE_BACK_SLACK = 1.25
"""On-demand nodes are given back once the work left takes this much less than the time left."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Purse:
    """Weighs a run's money and time at every look. Buys nothing itself."""

    meter: Meter
    settings: Ec2
    limits: Limits
    now: Callable[[], datetime]
    tell: Callable[[EventKind, str], None]
    limit: str = ""
    """Why the nodes must go, once they must."""
    market: Verdict = Verdict.SPOT
    _spend: Spend | None = None
    _metered: frozenset[str] = frozenset()
    _too_dear: int = 0
    """Nodes that were not bought at the last look, for the cost limit."""
    _unpriced: bool = False

    def read(self, holding: frozenset[str], *, due: bool) -> Spend | None:
        """What is spent; read again when it is due or other nodes live. None where nobody knows.

        Without the store the last reading goes on: nothing is bought then, so it grows no faster.
        Raises `PriceUnknown` where a cost limit has to be kept, and `AwsError`.
        """
        if self._spend is not None and not due and holding == self._metered:
            return self._spend
        try:
            self._spend, self._metered = self.meter.read(), holding
            self._unpriced = False
        except PriceUnknown as error:
            if self.limits.max_cost_usd is not None:
                raise
            if not self._unpriced:
                self._unpriced = True
                self.tell(EventKind.MARKET, f"what the run costs is not known: {error}")
        except AWAY:
            if self._spend is None:
                raise
        return self._spend

    def weigh(self, spend: Spend | None, left_s: float) -> bool:
        """Whether to go on, and in which market; True where the market is another one now.

        `left_s`: the work that is left, in seconds of the fleet as wanted.
        """
        found = verdict(
            self._standing(spend, left_s),
            max_cost_usd=self.limits.max_cost_usd,
            deadline=self.limits.deadline,
            on_demand=self.settings.on_demand,
            startup_s=self.settings.startup_s,
        )
        if found is Verdict.STOP_COST:
            assert spend is not None
            self.limit = (
                f"the cost limit of {self.limits.max_cost_usd:.2f} USD is reached: "
                f"{spend.usd} USD are spent, and the nodes must still drain"
            )
        elif found is Verdict.STOP_DEADLINE:
            assert self.limits.deadline is not None
            self.limit = f"the deadline {self.limits.deadline.isoformat()} has passed"
        elif found is not self.market:
            self.market = found
            self._tell_market()
            return True
        return False

    def has_slack(self, left_s: float) -> bool:
        """Whether spot nodes make the deadline with time to spare, so that dear ones may go."""
        deadline = self.limits.deadline
        if self.market is not Verdict.SPOT or deadline is None:
            return False
        needed_s = GIVE_BACK_SLACK * left_s + 2 * self.settings.startup_s
        return self.now() + timedelta(seconds=needed_s) < deadline

    def affordable(
        self, slots: Sequence[str], specs: Mapping[str, SlotSpec], spend: Spend | None
    ) -> Sequence[str]:
        """As many as the cost limit has room for, and no part of a pipeline without the rest; the
        limit is reached where that is no node."""
        limit_usd = self.limits.max_cost_usd
        if limit_usd is None or not slots:
            return slots
        assert spend is not None  # with a limit, a price that is not known has risen
        rates = [float(self.meter.dearest(specs[slot].pools)) for slot in slots]
        number = num_affordable(rates, self._standing(spend, 0.0), max_cost_usd=limit_usd)
        left_out = {specs[slot].group for slot in slots[number:]} - {""}
        bought = [slot for slot in slots[:number] if specs[slot].group not in left_out]
        if len(bought) < len(slots) and not bought and not spend.num_nodes:
            what = "all nodes of a pipeline" if left_out else "a node"
            self.limit = (
                f"the cost limit of {limit_usd:.2f} USD has no room for {what}: {spend.usd} USD "
                f"are spent, a node costs up to {rates[0]:.2f} USD an hour, one minute is "
                "billed at least, and five are kept back for its end"
            )
        elif (too_dear := len(slots) - len(bought)) != self._too_dear:
            self._too_dear = too_dear
            if too_dear:
                room = f"the cost limit has no room for {too_dear} of the nodes that are wanted"
                self.tell(EventKind.MARKET, room)
        return bought

    def expiry(self, specs: Mapping[str, SlotSpec], spend: Spend | None) -> datetime:
        """When a node that is bought now ends itself: with a cost limit, before a whole fleet has
        spent what is left. So the limit is kept although the controller is gone, whatever else was
        bought: the money left then lasts all nodes at least as long as their tags say."""
        now, deadline = self.now(), self.limits.deadline
        found = now + timedelta(hours=self.settings.max_node_hours)
        if deadline is not None:
            found = min(found, deadline + EXPIRY_MARGIN)
        limit_usd = self.limits.max_cost_usd
        if limit_usd is None or spend is None:
            return found
        rates = [self.meter.dearest(spec.pools) for spec in specs.values() if spec.pools]
        whole = float(sum(rates, Decimal(0)))
        left_usd = max(0.0, limit_usd - self._standing(spend, 0.0).spent_usd)
        lasts_s = left_usd / whole * 3600 if whole > 0 else 0.0
        return min(found, now + timedelta(seconds=max(0.0, lasts_s - DRAIN_S)))

    def _standing(self, spend: Spend | None, left_s: float) -> Standing:
        now = self.now()
        if spend is None:
            return Standing(now=now, spent_usd=0.0, usd_per_hour=0.0, remaining_s=left_s)
        rate = float(spend.usd_per_hour)
        since_h = max(0.0, (now - spend.at).total_seconds() / 3600)
        spent_usd = float(spend.usd) + rate * since_h
        return Standing(now=now, spent_usd=spent_usd, usd_per_hour=rate, remaining_s=left_s)

    def _tell_market(self) -> None:
        if self.market is Verdict.SPOT:
            self.tell(EventKind.MARKET, "spot again: the deadline has slack")
            return
        self.tell(EventKind.MARKET, "on-demand from now on: new spot nodes might miss the deadline")
