"""The offering sheet that is shipped: what is planned with where AWS cannot be asked.

Made of the catalogue's own files. On-demand prices are those of us-east-1 on 2026-07-20 (the table
of Karpenter), spot prices of several dates (sources in `spot_prices.csv`); neither is today's.
"""

from datetime import UTC, date, datetime

from placement.catalogue.hardware import GIGA, MIB, SHIPPED, load_catalogue, positive, rows_of
from shunt.plan.offering_sheet import GpuType, OfferingSheet, SpotPrice

ON_DEMAND_REGION = "us-east-1"
TAKEN_AT = datetime(2026, 7, 20, tzinfo=UTC)
SOURCE = (
    "the snapshot that is shipped: on-demand prices of us-east-1 on 2026-07-20 "
    "(karpenter-provider-aws@1d92708), spot prices of 2025-08 to mid-2026 (HeteroSpotLLMServe, "
    "skypilot-catalog@00148f2)"
)
_SPOT_PRICES = SHIPPED / "spot_prices.csv"


def shipped_sheet(region: str) -> OfferingSheet:
    """Every type of the catalogue, with the prices that the snapshot has of this region."""
    instances = load_catalogue().instances.values()
    prices = _spot_prices(region)
    missing = ["placement scores and quotas: only AWS knows them"]
    if not prices:
        missing.append(f"spot prices: the snapshot has none of {region}")
    if region != ON_DEMAND_REGION:
        missing.append(f"on-demand prices: the snapshot has those of {ON_DEMAND_REGION} only")
    return OfferingSheet(
        region=region,
        taken_at=TAKEN_AT,
        source=SOURCE,
        types=tuple(
            GpuType(
                instance_type=i.name,
                gpu=i.gpu.name,
                gpu_count=i.gpu_count,
                gpu_memory_mib=round(i.gpu.memory_bytes / MIB),
                vcpus=i.vcpus,
                nvme_gb=round(i.nvme_bytes / GIGA),
            )
            for i in instances
        ),
        prices=prices,
        on_demand={
            i.name: i.ondemand_usd_per_hour
            for i in instances
            if i.ondemand_usd_per_hour is not None and region == ON_DEMAND_REGION
        },
        missing=tuple(missing),
    )


def _spot_prices(region: str) -> tuple[SpotPrice, ...]:
    """The file is in order of time: of one pool's prices the last counts."""
    found: dict[tuple[str, str], SpotPrice] = {}
    for where, row in rows_of(_SPOT_PRICES):
        if row["region"] == region:
            found[row["instance_type"], row["zone"]] = SpotPrice(
                instance_type=row["instance_type"],
                zone=row["zone"],
                usd_per_hour=positive(where, row, "usd_per_hour"),
                since=_day(row["date"]),
            )
    zoned = {instance_type for instance_type, zone in found if zone}
    # Where zones have prices, one of somewhere in the region says nothing more.
    return tuple(found[key] for key in sorted(found) if key[1] or key[0] not in zoned)


def _day(text: str) -> datetime | None:
    """None where the source only says about when."""
    try:
        return datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC)
    except ValueError:
        return None
