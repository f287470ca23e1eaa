"""Whether a run may go on buying, and in which market: pure arithmetic over what is known now."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from shunt.job.job import OnDemandPolicy

BILLED_AT_LEAST_S = 60.0
"""EC2 bills by the second, but a minute at least."""
STOP_MARGIN_S = 300.0
"""Spend of so many seconds is kept back for the drain and the end of the nodes."""


class Verdict(StrEnum):
    SPOT = "spot"
    ON_DEMAND = "on-demand"
    """The slack is gone: only nodes that are not taken away still make the deadline."""
    STOP_COST = "stop: the cost limit is reached"
    STOP_DEADLINE = "stop: the deadline has passed"


@dataclass(frozen=True, slots=True)
class Standing:
    """How a run stands."""

    now: datetime
    spent_usd: float
    usd_per_hour: float
    """Of the nodes that live now."""
    remaining_s: float
    """Work that is left, on an undisturbed fleet as wanted."""


def num_affordable(
    usd_per_hour_each: Sequence[float], standing: Standing, *, max_cost_usd: float
) -> int:
    """How many of these nodes, in their order, may be bought so that the run is not stopped for
    them at the next look: by then the least that each is billed is spent, and for its end as much
    is kept back as for any other."""
    spent_usd, rate = standing.spent_usd, standing.usd_per_hour
    for number, usd_per_hour in enumerate(usd_per_hour_each):
        spent_usd += usd_per_hour * BILLED_AT_LEAST_S / 3600
        rate += usd_per_hour
        if spent_usd + rate * STOP_MARGIN_S / 3600 >= max_cost_usd:
            return number
    return len(usd_per_hour_each)


def verdict(
    standing: Standing,
    *,
    max_cost_usd: float | None,
    deadline: datetime | None,
    on_demand: OnDemandPolicy,
    startup_s: float,
) -> Verdict:
    """Stop before the cap is passed; spot while the slack lasts; on-demand only after, if allowed.

    The slack is gone when the work left, on nodes that must first start, takes until the deadline.
    """
    reserve_usd = standing.usd_per_hour * STOP_MARGIN_S / 3600
    if max_cost_usd is not None and standing.spent_usd + reserve_usd >= max_cost_usd:
        return Verdict.STOP_COST
    if deadline is None:
        return Verdict.SPOT
    if standing.now >= deadline:
        return Verdict.STOP_DEADLINE
    needed = timedelta(seconds=standing.remaining_s + startup_s)
    if on_demand != "never" and standing.now + needed >= deadline:
        return Verdict.ON_DEMAND
    return Verdict.SPOT
