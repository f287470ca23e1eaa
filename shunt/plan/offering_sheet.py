"""The offering sheet: one look at a market of GPU nodes, with its source and age.

`shunt.aws.money.offerings` makes one from EC2, `placement.catalogue.snapshot` from what is
shipped; the planner takes either. Plain data, so that planning needs no AWS client.
"""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from shunt.errors import InputError


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
    """Empty: somewhere in the region."""
    usd_per_hour: float
    """0: nodes that are there and cost nothing more."""
    since: AwareDatetime | None = None
    """When the price came into force, where that is known."""
    count: Annotated[int, Field(ge=0)] | None = None
    """Nodes that are there; None: nobody knows how many can be bought."""
    interruptions_per_hour: Annotated[float, Field(ge=0)] | None = None
    """Of a node; None: as for any spot node."""


class OfferingSheet(_Record):
    """One look at the market."""

    format_version: Literal[1] = 1
    region: str
    taken_at: AwareDatetime
    source: str = "AWS"
    types: tuple[GpuType, ...] = ()
    prices: tuple[SpotPrice, ...] = ()
    on_demand: dict[str, float] = {}
    """USD per hour by instance type."""
    scores: dict[str, int] = {}
    """Placement score (1 to 10, advice only) by zone, for `score_types` together."""
    score_types: tuple[str, ...] = ()
    quotas: dict[str, float] = {}
    """vCPU quotas by their name in Service Quotas; names differ by family, codes are not sure."""
    missing: tuple[str, ...] = ()
    """Sentences: which column is empty, and what it needs."""

    def quota_name(self, instance_type: str, market: str) -> str | None:
        """The quota that the type falls under; None where none was found."""
        family = instance_type.split(".", 1)[0].upper()
        letters = family.rstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ").rstrip("0123456789")
        generation = family[: len(letters) + 1]  # P5 of p5en, G6 of g6e
        for name in (generation, letters):
            for quota in self.quotas:
                words = quota.replace("/", " ").replace(",", " ").split()
                if name in words and ("Spot" in quota) == (market == "spot"):
                    return quota
        return None

    def quota_vcpus(self, instance_type: str, market: str) -> float | None:
        """vCPUs of that quota; None where none was found."""
        name = self.quota_name(instance_type, market)
        return None if name is None else self.quotas[name]

    def only(self, instance_types: frozenset[str]) -> "OfferingSheet":
        """The part about these types."""
        return self.model_copy(
            update={
                "types": tuple(t for t in self.types if t.instance_type in instance_types),
                "prices": tuple(p for p in self.prices if p.instance_type in instance_types),
                "on_demand": {t: usd for t, usd in self.on_demand.items() if t in instance_types},
            }
        )

    def younger(self, age_s: float, now: datetime) -> bool:
        """A sheet from the future is not young: some clock is wrong."""
        return 0 <= (now - self.taken_at).total_seconds() < age_s

    def age(self, now: datetime) -> str:
        """For people: how old the sheet is."""
        age_s = (now - self.taken_at).total_seconds()
        for unit, seconds in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
            if age_s >= 2 * seconds:
                return f"{age_s / seconds:.0f} {unit} old"
        return f"{age_s:.0f} s old"


def read_sheet(path: Path) -> OfferingSheet:
    """A sheet that `shunt offers --json` or an earlier look wrote. Raises `InputError`."""
    try:
        return OfferingSheet.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"offerings {path}: cannot be read ({error.strerror})") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "file"
        raise InputError(
            f"offerings {path}: {where}: {first['msg']}; write it by shunt offers --json"
        ) from error


def keep_sheet(path: Path, sheet: OfferingSheet) -> None:
    """Keep it for later looks. Overwritten: a torn file is unreadable and is asked for anew."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(sheet.model_dump_json(indent=1))


__all__ = ["GpuType", "OfferingSheet", "SpotPrice", "keep_sheet", "read_sheet"]
