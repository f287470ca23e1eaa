"""What can be bought: spot pools and on-demand, with price, cap and interruption rate."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from placement.catalogue.hardware import Catalogue, InstanceType
from placement.errors import BadInput


class Market(StrEnum):
    SPOT = "spot"
    ON_DEMAND = "on-demand"


@dataclass(frozen=True, slots=True)
class Offering:
    """One spot pool, or on-demand nodes of one type in one zone."""

    instance: InstanceType
    market: Market
    zone: str
    usd_per_hour: float
    max_nodes: int
    interruptions_per_hour: float

    @property
    def name(self) -> str:
        return f"{self.instance.name}/{self.zone or 'any zone'}/{self.market}"


@dataclass(frozen=True, slots=True)
class SupplyGroup:
    """Offerings that are the same to a pipeline: equal nodes, equally often interrupted."""

    instance: InstanceType
    interruptions_per_hour: float
    offerings: tuple[Offering, ...]

    @property
    def max_nodes(self) -> int:
        return sum(offering.max_nodes for offering in self.offerings)

    @property
    def max_gpus(self) -> int:
        return self.max_nodes * self.instance.gpu_count


def make_offering(
    catalogue: Catalogue,
    *,
    instance_type: str,
    market: str,
    zone: str,
    usd_per_hour: float | None,
    max_nodes: int,
    interruptions_per_hour: float | None,
    default_spot_rate: float,
) -> Offering:
    """A checked offering. Raises `BadInput` on an unknown type, or a price or count that is not
    possible."""
    instance = catalogue.instance(instance_type)
    if market not in list(Market):
        raise BadInput(f"offering {instance_type}: market {market!r}; write spot or on-demand")
    kind = Market(market)
    price = usd_per_hour
    if price is None and kind is Market.ON_DEMAND:
        price = instance.ondemand_usd_per_hour
    if price is None:
        raise BadInput(f"offering {instance_type} {zone}: no price; give usd_per_hour")
    if not math.isfinite(price):
        raise BadInput(f"offering {instance_type} {zone}: price {price:g} is not a number")
    if price < 0:
        raise BadInput(f"offering {instance_type} {zone}: negative price {price:g} USD/h")
    if max_nodes < 0:
        raise BadInput(f"offering {instance_type} {zone}: negative count {max_nodes}")
    rate = interruptions_per_hour
    if rate is None:
        rate = default_spot_rate if kind is Market.SPOT else 0.0
    if rate < 0:
        raise BadInput(f"offering {instance_type} {zone}: negative interruption rate {rate:g}/h")
    return Offering(instance, kind, zone, price, max_nodes, rate)


def group_offerings(offerings: Sequence[Offering]) -> tuple[SupplyGroup, ...]:
    """Groups in order of first appearance; inside a group the cheapest offering first."""
    groups: dict[tuple[str, float], list[Offering]] = {}
    for offering in offerings:
        if offering.max_nodes > 0:
            key = (offering.instance.name, offering.interruptions_per_hour)
            groups.setdefault(key, []).append(offering)
    return tuple(
        SupplyGroup(
            found[0].instance,
            rate,
            tuple(sorted(found, key=lambda o: (o.usd_per_hour, o.zone, o.market))),
        )
        for (_, rate), found in groups.items()
    )
