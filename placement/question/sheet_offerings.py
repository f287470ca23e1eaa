"""From an offering sheet to the planner's offerings, within the quotas of the account.

A quota holds for all types of its families together; the planner knows caps per offering only. So
each offering is capped by its whole quota first, and where the plan's nodes then exceed one
together, the offerings are capped to a share of it that the plan asked for, and it is made again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from placement.catalogue.hardware import Catalogue, InstanceType
from placement.catalogue.offering import Market, Offering, make_offering
from placement.question.interruption import DEFAULT_SPOT_RATE
from shunt.plan.offering_sheet import OfferingSheet, SpotPrice
from shunt.plan.plan import NodeSlot

DEFAULT_MAX_NODES = 8
"""Of one offering whose quota is not known: few, as nobody said that there are more."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which part of a sheet to plan with."""

    instance_type: str
    market: str = Market.SPOT.value
    zone: str = ""
    """Empty: every zone that has a price."""
    max_nodes: int | None = None
    """Per zone; None: as far as the quota allows."""
    interruptions_per_hour: float | None = None


@dataclass(frozen=True, slots=True)
class SheetOfferings:
    """What a sheet offers."""

    offerings: tuple[Offering, ...]
    notes: tuple[str, ...]
    """Sentences: what was left out and why, what was taken from elsewhere."""


def offerings_of(
    sheet: OfferingSheet, catalogue: Catalogue, wanted: Sequence[Wanted] = ()
) -> SheetOfferings:
    """The sheet's pools as offerings: those wanted, or (none named) all that the catalogue knows.

    Raises `BadInput` for a wanted type that the catalogue does not have.
    """
    notes: list[str] = []
    if not wanted:
        wanted = _everything(sheet, catalogue, notes)
    offerings: list[Offering] = []
    for want in wanted:
        instance = catalogue.instance(want.instance_type)
        pools = _pools(sheet, instance, want)
        if not pools:
            notes.append(f"left out: {want.instance_type} {want.market} {want.zone}: no price")
        offerings += [
            make_offering(
                catalogue,
                instance_type=want.instance_type,
                market=want.market,
                zone=pool.zone,
                usd_per_hour=pool.usd_per_hour,
                max_nodes=cap,
                interruptions_per_hour=_first(
                    want.interruptions_per_hour, pool.interruptions_per_hour
                ),
                default_spot_rate=DEFAULT_SPOT_RATE,
            )
            for pool in pools
            if (cap := _cap(sheet, instance, want, pool.count, notes)) > 0
        ]
    return SheetOfferings(tuple(offerings), tuple(notes))


def within_quotas(
    sheet: OfferingSheet, offerings: Sequence[Offering], nodes: Sequence[NodeSlot]
) -> tuple[tuple[Offering, ...], tuple[str, ...]]:
    """The offerings capped so that no plan of them exceeds a quota that this plan exceeds.

    Returns them with a sentence per quota that binds; without one, nothing was changed.
    """
    vcpus = {o.instance.name: o.instance.vcpus for o in offerings}
    used: dict[str, dict[tuple[str, str, str], int]] = {}
    for node in nodes:
        name = _quota_of(sheet, node.instance_type, node.zone, node.market)
        if name is not None:
            pool = (node.instance_type, node.zone, node.market)
            of_quota = used.setdefault(name, {})
            of_quota[pool] = of_quota.get(pool, 0) + 1
    capped = list(offerings)
    told: list[str] = []
    for name, pools in used.items():
        limit = sheet.quotas[name]
        total = sum(vcpus[pool[0]] * count for pool, count in pools.items())
        if total <= limit:
            continue
        told.append(f"quota {name!r}: {limit:g} vCPU, the best plan without it takes {total}")
        share = _shares(pools, limit=limit, vcpus=lambda pool: vcpus[pool[0]])
        capped = [_recapped(o, share) if _under(sheet, o, name) else o for o in capped]
    return tuple(capped), tuple(told)


def _shares(
    pools: dict[tuple[str, str, str], int],
    *,
    limit: float,
    vcpus: Callable[[tuple[str, str, str]], int],
) -> dict[tuple[str, str, str], int]:
    """Nodes of each pool in proportion to the plan's; the rest goes to the largest use first."""
    total = sum(vcpus(pool) * count for pool, count in pools.items())
    shares = {pool: int(count * limit / total) for pool, count in pools.items()}
    left = limit - sum(vcpus(pool) * count for pool, count in shares.items())
    for pool in sorted(pools, key=lambda p: (-vcpus(p) * pools[p], p)):
        while left >= vcpus(pool) > 0 and shares[pool] < pools[pool]:
            shares[pool] += 1
            left -= vcpus(pool)
    return shares


def _recapped(offering: Offering, shares: dict[tuple[str, str, str], int]) -> Offering:
    pool = (offering.instance.name, offering.zone, offering.market.value)
    return replace(offering, max_nodes=shares.get(pool, 0))


def _under(sheet: OfferingSheet, offering: Offering, quota: str) -> bool:
    return _quota_of(sheet, offering.instance.name, offering.zone, offering.market) == quota


def _quota_of(sheet: OfferingSheet, instance_type: str, zone: str, market: str) -> str | None:
    """None for nodes that are there: whoever has them needs no leave to buy them."""
    there = any(
        price.count is not None and (price.instance_type, price.zone) == (instance_type, zone)
        for price in sheet.prices
    )
    if there and market == Market.SPOT:
        return None
    return sheet.quota_name(instance_type, market)


def _everything(sheet: OfferingSheet, catalogue: Catalogue, notes: list[str]) -> list[Wanted]:
    priced = {p.instance_type for p in sheet.prices}
    unknown = sorted((priced | set(sheet.on_demand)) - set(catalogue.instances))
    if unknown:
        notes.append(
            f"left out: not in the catalogue: {', '.join(unknown)}; add them under "
            "plan.catalogue.instances"
        )
    return [
        *(Wanted(name, Market.SPOT) for name in sorted(priced - set(unknown))),
        *(Wanted(name, Market.ON_DEMAND) for name in sorted(set(sheet.on_demand) - set(unknown))),
    ]


def _first(*rates: float | None) -> float | None:
    return next((rate for rate in rates if rate is not None), None)


def _cap(
    sheet: OfferingSheet,
    instance: InstanceType,
    want: Wanted,
    count: int | None,
    notes: list[str],
) -> int:
    """Nodes of one pool at most. `count`: that are there, where the sheet says it; nodes that are
    there fall under no quota."""
    if count is not None:
        return count if want.max_nodes is None else min(count, want.max_nodes)
    quota = sheet.quota_vcpus(instance.name, want.market)
    wanted = DEFAULT_MAX_NODES if want.max_nodes is None else want.max_nodes
    if quota is None or not instance.vcpus:
        return wanted
    allowed = int(quota // instance.vcpus)
    if allowed == 0:
        told = (
            f"left out: {instance.name} {want.market}: needs {instance.vcpus} vCPU, the quota "
            f"{sheet.quota_name(instance.name, want.market)!r} is {quota:g}"
        )
        if told not in notes:
            notes.append(told)
    return allowed if want.max_nodes is None else min(allowed, wanted)


def _pools(sheet: OfferingSheet, instance: InstanceType, want: Wanted) -> list[SpotPrice]:
    """On demand has one price in the whole region: the catalogue's, if need be."""
    if want.market == Market.SPOT:
        return [
            price
            for price in sheet.prices
            if price.instance_type == instance.name and want.zone in ("", price.zone)
        ]
    usd = sheet.on_demand.get(instance.name, instance.ondemand_usd_per_hour)
    if usd is None:
        return []
    return [SpotPrice(instance_type=instance.name, zone=want.zone, usd_per_hour=usd)]
