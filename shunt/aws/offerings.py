"""What EC2 sells now: GPU types, spot prices per zone, placement scores and quotas, with their age.

A permission that is missing costs its column and leaves a line that names it, nothing else.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from shunt.aws.api import AwsApi
from shunt.aws.errors import AwsError, PermissionRefused

_TYPES_PER_SCORE = 10
SCORE_TARGET_NODES = 10
_MIN_TYPES_FOR_A_SCORE = 3
"""With fewer types EC2 always answers low (EC2 documentation)."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GpuType(_Record):
    instance_type: str
    gpu: str
    gpu_count: int
    gpu_memory_mib: int
    """Of one GPU."""
    vcpus: int
    nvme_gb: int


class SpotPrice(_Record):
    instance_type: str
    zone: str
    usd_per_hour: float
    since: AwareDatetime


class OfferingSheet(_Record):
    """One look at the market."""

    format_version: Literal[1] = 1
    region: str
    taken_at: AwareDatetime
    types: tuple[GpuType, ...] = ()
    prices: tuple[SpotPrice, ...] = ()
    scores: dict[str, int] = {}
    """Placement score (1 to 10, advice only) by zone id, for the types together."""
    quotas: dict[str, float] = {}
    """vCPU quotas by their name in Service Quotas; names differ by family, codes are not sure."""
    missing: tuple[str, ...] = ()
    """Sentences: which column is empty, and what it needs."""

    def quota_vcpus(self, instance_type: str, market: str) -> float | None:
        """The quota that the type falls under, by name; None where none was found."""
        family = instance_type.split(".", 1)[0].upper()
        letters = family.rstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ").rstrip("0123456789")
        generation = family[: len(letters) + 1]  # P5 of p5en, G6 of g6e
        for name in (generation, letters):
            for quota, value in self.quotas.items():
                words = quota.replace("/", " ").replace(",", " ").split()
                if name in words and ("Spot" in quota) == (market == "spot"):
                    return value
        return None


def look(
    ec2: AwsApi,
    quotas: AwsApi,
    *,
    region: str,
    now: datetime,
    instance_types: Sequence[str] = (),
) -> OfferingSheet:
    """Ask everything once: at most a handful of calls, whatever the number of types."""
    missing: list[str] = []

    def tried(what: str, ask: Callable[[], Any], otherwise: Any) -> Any:
        try:
            return ask()
        except PermissionRefused as error:
            missing.append(f"{what}: not shown; it needs {error.permission}")
        except AwsError as error:
            missing.append(f"{what}: not shown; {error}")
        return otherwise

    types = tried("GPU types", lambda: _gpu_types(ec2, instance_types), ())
    names = [t.instance_type for t in types] or list(instance_types)
    return OfferingSheet(
        region=region,
        taken_at=now,
        types=types,
        prices=tried("spot prices", lambda: _prices(ec2, names, now), ()) if names else (),
        scores=tried("placement scores", lambda: _scores(ec2, names, region), {}),
        quotas=tried("quotas", lambda: _quotas(quotas), {}),
        missing=tuple(missing),
    )


def cached(
    path: Path, *, max_age_s: float, now: datetime, ask: Callable[[], OfferingSheet]
) -> OfferingSheet:
    """The sheet in the file while it is young, else a new one; an unreadable file is asked anew."""
    if path.exists():
        try:
            sheet = OfferingSheet.model_validate_json(path.read_bytes())
        except ValidationError:
            sheet = None
        if sheet is not None and 0 <= (now - sheet.taken_at).total_seconds() < max_age_s:
            return sheet
    sheet = ask()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(sheet.model_dump_json(indent=1))
    return sheet


def _gpu_types(ec2: AwsApi, wanted: Sequence[str]) -> tuple[GpuType, ...]:
    params: dict[str, Any] = {"InstanceTypes": list(wanted)} if wanted else {}
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
    newest: dict[tuple[str, str], SpotPrice] = {}
    for row in ec2.pages("describe_spot_price_history", params, "SpotPriceHistory"):
        price = SpotPrice(
            instance_type=row["InstanceType"],
            zone=row["AvailabilityZone"],
            usd_per_hour=float(row["SpotPrice"]),
            since=row["Timestamp"],
        )
        key = (price.instance_type, price.zone)
        if key not in newest or newest[key].since < price.since:
            newest[key] = price
    return tuple(newest[key] for key in sorted(newest))


def _scores(ec2: AwsApi, types: Sequence[str], region: str) -> dict[str, int]:
    if len(types) < _MIN_TYPES_FOR_A_SCORE:
        return {}
    params = {
        "InstanceTypes": list(types)[:_TYPES_PER_SCORE],
        "TargetCapacity": SCORE_TARGET_NODES,
        "SingleAvailabilityZone": True,
        "RegionNames": [region],
    }
    rows = ec2.pages("get_spot_placement_scores", params, "SpotPlacementScores")
    return {row["AvailabilityZoneId"]: row["Score"] for row in rows}


def _quotas(quotas: AwsApi) -> dict[str, float]:
    rows = quotas.pages("list_service_quotas", {"ServiceCode": "ec2"}, "Quotas")
    marks = ("On-Demand", "Spot")
    return {r["QuotaName"]: r["Value"] for r in rows if any(m in r["QuotaName"] for m in marks)}
