"""What EC2 sells now: GPU types, spot prices per zone, on-demand prices, scores and quotas.

A permission that is missing costs its column and leaves a line that names it, nothing else.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from shunt.aws.api import AwsApi
from shunt.aws.errors import AwsError, CredentialsRefused, OutcomeUnknown, PermissionRefused
from shunt.aws.money.price_list import on_demand_prices
from shunt.plan.offering_sheet import GpuType, OfferingSheet, SpotPrice

T = TypeVar("T")

SCORE_TARGET_NODES = 10
SCORE_TYPES = (
    *("g5.xlarge", "g5.12xlarge", "g6.xlarge", "g6.12xlarge", "g6.48xlarge"),
    *("g6e.xlarge", "g6e.12xlarge", "g6e.48xlarge", "p4d.24xlarge", "p5.48xlarge"),
)
"""Always the same ten: EC2 answers few different questions for scores a day, and with fewer than
three types the score is always low (EC2 documentation)."""


@dataclass(frozen=True, slots=True)
class Desk:
    """The services that know a part of it."""

    ec2: AwsApi
    quotas: AwsApi
    pricing: AwsApi


@dataclass(slots=True)
class _Asking:
    """Asks one thing after the other, and says what it did not get."""

    missing: list[str] = field(default_factory=list[str])
    hopeless: bool = False
    """Nobody answers, or not to us: the next question would only wait for the same."""

    def tried(self, what: str, ask: Callable[[], T], otherwise: T) -> T:
        if self.hopeless:
            return otherwise
        try:
            return ask()
        except (CredentialsRefused, OutcomeUnknown) as error:
            self.hopeless = True
            needs = "it needs " + getattr(error, "permission", "AWS to be reachable")
            self.missing.append(f"{what} and all after it: not shown; {needs} ({error.code})")
        except PermissionRefused as error:
            self.missing.append(f"{what}: not shown; it needs {error.permission}")
        except AwsError as error:
            self.missing.append(f"{what}: not shown; {error}")
        return otherwise


def look(desk: Desk, *, region: str, now: datetime) -> OfferingSheet:
    """Ask everything once: about fifteen calls, most of them pages of instance types."""
    asking = _Asking()
    ec2 = desk.ec2
    types = asking.tried("GPU types", lambda: _gpu_types(ec2), ())
    names = [t.instance_type for t in types] or list(SCORE_TYPES)
    prices = asking.tried("spot prices", lambda: _prices(ec2, names, now), ())
    on_demand = asking.tried(
        "on-demand prices", lambda: on_demand_prices(desk.pricing, region), dict[str, float]()
    )
    zones = asking.tried("names of zones", lambda: _zones(ec2), dict[str, str]())
    scores = asking.tried("placement scores", lambda: _scores(ec2, region, zones), dict[str, int]())
    return OfferingSheet(
        region=region,
        taken_at=now,
        types=types,
        prices=prices,
        on_demand=on_demand,
        scores=scores,
        score_types=SCORE_TYPES if scores else (),
        quotas=asking.tried("quotas", lambda: _quotas(desk.quotas), dict[str, float]()),
        missing=tuple(asking.missing),
    )


_GPU_FAMILIES = ("g*", "p*")
"""All of AWS's types with GPUs begin so; asking for all types takes ten pages."""


def _gpu_types(ec2: AwsApi) -> tuple[GpuType, ...]:
    wanted = [{"Name": "instance-type", "Values": list(_GPU_FAMILIES)}]
    params = {"MaxResults": 100, "Filters": wanted}
    rows = ec2.pages("describe_instance_types", params, "InstanceTypes")
    return tuple(_gpu_type(row) for row in rows if row.get("GpuInfo", {}).get("Gpus"))


def _gpu_type(row: dict[str, Any]) -> GpuType:
    gpu = row["GpuInfo"]["Gpus"][0]
    return GpuType(
        instance_type=row["InstanceType"],
        gpu=gpu["Name"],
        gpu_count=gpu["Count"],
        gpu_memory_mib=gpu["MemoryInfo"]["SizeInMiB"],
        vcpus=row["VCpuInfo"]["DefaultVCpus"],
        nvme_gb=row.get("InstanceStorageInfo", {}).get("TotalSizeInGB", 0),
    )


def _prices(ec2: AwsApi, types: Sequence[str], now: datetime) -> tuple[SpotPrice, ...]:
    params = {
        "InstanceTypes": list(types),
        "ProductDescriptions": ["Linux/UNIX"],
        "StartTime": now,
        "EndTime": now,
    }
    newest: dict[tuple[str, str], dict[str, Any]] = {}
    for row in ec2.pages("describe_spot_price_history", params, "SpotPriceHistory"):
        key = (row["InstanceType"], row["AvailabilityZone"])
        if key not in newest or newest[key]["Timestamp"] < row["Timestamp"]:
            newest[key] = row
    return tuple(
        SpotPrice(
            instance_type=name,
            zone=zone,
            usd_per_hour=float(row["SpotPrice"]),
            since=row["Timestamp"],
        )
        for (name, zone), row in sorted(newest.items(), key=lambda found: found[0])
    )


def _zones(ec2: AwsApi) -> dict[str, str]:
    """Name by id: the ids are the same for everybody, the names are an account's own."""
    rows = ec2.call("describe_availability_zones", {})["AvailabilityZones"]
    return {row["ZoneId"]: row["ZoneName"] for row in rows}


def _scores(ec2: AwsApi, region: str, zones: Mapping[str, str]) -> dict[str, int]:
    params = {
        "InstanceTypes": list(SCORE_TYPES),
        "TargetCapacity": SCORE_TARGET_NODES,
        "SingleAvailabilityZone": True,
        "RegionNames": [region],
    }
    rows = ec2.pages("get_spot_placement_scores", params, "SpotPlacementScores")
    named = {row["AvailabilityZoneId"]: row["Score"] for row in rows}
    return {zones.get(zone_id, zone_id): score for zone_id, score in named.items()}


def _quotas(quotas: AwsApi) -> dict[str, float]:
    rows = quotas.pages("list_service_quotas", {"ServiceCode": "ec2"}, "Quotas")
    marks = ("On-Demand", "Spot")
    return {r["QuotaName"]: r["Value"] for r in rows if any(m in r["QuotaName"] for m in marks)}
