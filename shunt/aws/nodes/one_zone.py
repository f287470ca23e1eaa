"""Nodes that work together are bought in one zone. Pure.

Chosen anew at every look, from what lives and what is closed. A group that cannot be completed
where it is goes to a zone that has all of it, at once: without the missing node the others do
nothing, and a closed pool stays closed for minutes, in which a whole group can boot. Until some
zone has all of it, none of the missing nodes is bought; and where one was refused lately, it is
asked for first, so that the others are not bought in vain.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from shunt.aws.nodes.pool import Blocklist, Pool, SlotSpec


@dataclass(frozen=True, slots=True)
class Gathered:
    """What to want now."""

    specs: Mapping[str, SlotSpec]
    moving: Mapping[str, str]
    """The zone to which the nodes of these slots move."""


def gathered(
    specs: Mapping[str, SlotSpec], holding: Mapping[str, Pool], blocklist: Blocklist
) -> Gathered:
    """`specs` with each group (`SlotSpec.group`) in one zone; `holding`: the pools of the living
    nodes by slot. All slots of a group must have a zone in common."""
    groups: dict[str, list[SlotSpec]] = {}
    for spec in specs.values():
        if spec.group:
            groups.setdefault(spec.group, []).append(spec)
    wanted, moving = dict(specs), dict[str, str]()
    for members in groups.values():
        zone = _zone(members, holding, blocklist)
        there = [s for s in members if s.slot in holding and holding[s.slot].zone == zone]
        missing = [_in_zone(spec, zone) for spec in members if spec not in there]
        closed = any(blocklist.wait_s(pool) > 0.0 for pool in missing)
        scarce = [pool for pool in missing if blocklist.refused_lately(pool)]
        for spec in members:
            pool = _in_zone(spec, zone)
            waits = "not all of its pipeline is to be had" if closed else ""
            if scarce and pool not in scarce:
                waits = f"first {scarce[0].instance_type} must be had, which its pipeline needs too"
            wanted[spec.slot] = replace(spec, pools=(pool,), waits_for=waits)
            if spec.slot in holding and spec not in there:
                moving[spec.slot] = zone
    return Gathered(wanted, moving)


def _zone(members: list[SlotSpec], holding: Mapping[str, Pool], blocklist: Blocklist) -> str:
    def open_for(specs: list[SlotSpec], zone: str) -> bool:
        return all(blocklist.wait_s(_in_zone(spec, zone)) <= 0.0 for spec in specs)

    zones = _zones_for_all(members)
    living = [holding[spec.slot].zone for spec in members if spec.slot in holding]
    here = max(dict.fromkeys(living), key=living.count, default="")
    missing = [s for s in members if s.slot not in holding or holding[s.slot].zone != here]
    whole = [zone for zone in zones if open_for(members, zone)]
    if here in zones and (not whole or open_for(missing, here)):
        return here
    return whole[0] if whole else zones[0]


def _zones_for_all(members: list[SlotSpec]) -> list[str]:
    """In the order in which the first one prefers them."""
    rest = [{pool.zone for pool in spec.pools} for spec in members[1:]]
    first = dict.fromkeys(pool.zone for pool in members[0].pools)
    return [zone for zone in first if all(zone in zones for zones in rest)]


def _in_zone(spec: SlotSpec, zone: str) -> Pool:
    return next(pool for pool in spec.pools if pool.zone == zone)
