"""What a drill is played against: one trace of capacity, its prices, and how nodes are taken."""

from dataclasses import dataclass

from placement.catalogue.hardware import load_catalogue
from placement.question.planning_input import spot_snapshot
from shunt.drill.trace import Trace

ASSUMED_SPOT_USD, ASSUMED_ON_DEMAND_USD = 0.35, 1.0
"""Where nobody told a price: spot at about a third of on-demand, so that shares can be read."""


@dataclass(frozen=True, slots=True)
class Prices:
    """Of one node; `told` says in sentences where they are from."""

    spot_usd_per_hour: float
    on_demand_usd_per_hour: float
    told: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DrillMarket:
    """The same for each way to meet it."""

    name: str
    """Of the trace, as it was asked for."""
    trace: Trace
    nodes: int
    """The trace's peak."""
    prices: Prices
    notice_s: float
    """Between a notice and the end of a node, in seconds of the trace."""
    unnoticed: float
    """Share of the interruptions that come without a notice."""
    seed: int


def prices_of(instance_type: str, *, spot: float | None, on_demand: float | None) -> Prices:
    """From options, else from the shipped snapshot, else of no currency but their ratio."""
    known = load_catalogue().instances.get(instance_type)
    if on_demand is None and known is not None:
        on_demand = known.ondemand_usd_per_hour
    if spot is None and on_demand is not None:
        spot = spot_snapshot().get((instance_type, ""))
    if spot is None or on_demand is None:
        assumed = f"{ASSUMED_SPOT_USD:g} spot and {ASSUMED_ON_DEMAND_USD:g} on demand"
        told = f"no prices of {instance_type or 'the nodes'} are known: {assumed} are taken"
        return Prices(ASSUMED_SPOT_USD, ASSUMED_ON_DEMAND_USD, (told,))
    told = f"prices per node hour: {spot:g} USD spot, {on_demand:g} USD on demand"
    return Prices(spot, on_demand, (told,))
