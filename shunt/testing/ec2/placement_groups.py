"""Placement groups of the double: cluster groups, each in the zone of the first instance in it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from shunt.testing.ec2.faults import ApiFault
from shunt.testing.ec2.instance import Instance

Params = dict[str, Any]


@dataclass(slots=True)
class PlacementGroups:
    """`living` are the account's living instances."""

    living: Callable[[], Iterable[Instance]]
    groups: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    """Tags by name."""

    def create(self, params: Params) -> Params:
        name = params["GroupName"]
        if name in self.groups:
            raise ApiFault("InvalidPlacementGroup.Duplicate", f"{name} exists")
        pairs = [p for s in params.get("TagSpecifications", ()) for p in s["Tags"]]
        self.groups[name] = {pair["Key"]: pair["Value"] for pair in pairs}
        return {"PlacementGroup": {"GroupName": name, "Strategy": params["Strategy"]}}

    def describe(self, params: Params) -> Params:
        found = dict(self.groups)
        for wanted in params.get("Filters", ()):
            tag = wanted["Name"].removeprefix("tag:")
            found = {n: t for n, t in found.items() if t.get(tag) in wanted["Values"]}
        return {"PlacementGroups": [{"GroupName": n, "Strategy": "cluster"} for n in found]}

    def delete(self, params: Params) -> Params:
        name = params["GroupName"]
        if name not in self.groups:
            raise ApiFault("InvalidPlacementGroup.Unknown", f"there is no {name}")
        if any(instance.placement_group == name for instance in self.living()):
            raise ApiFault("InvalidPlacementGroup.InUse", f"{name} has instances")
        del self.groups[name]
        return {}

    def admit(self, name: str, zone: str) -> None:
        """Refuse what EC2 would not put into the group."""
        if name not in self.groups:
            raise ApiFault("InvalidPlacementGroup.Unknown", f"there is no {name}")
        if any(i.placement_group == name and i.pool.zone != zone for i in self.living()):
            raise ApiFault("InvalidParameterValue", f"{name} is in another zone than {zone}")
