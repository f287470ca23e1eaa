"""The hardware catalogue: GPUs and instance types, read from data files that a user can extend."""

import csv
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from placement.catalogue.model_shape import WeightFormat
from placement.errors import BadInput

SHIPPED = Path(__file__).parent
"""The data files that lie beside this one."""

GIGA = 1e9
MIB = float(1 << 20)
# `usable_share` of gpus.csv: 22,888 MiB of the 24 GB of an A10G or L4 are there to use (in-band ECC
# of GDDR6; DescribeInstanceTypes), while HBM cards have all but the driver's 1 % (nvidia-smi).
# An instance type's own gpu_memory_mib goes before it.


@dataclass(frozen=True, slots=True)
class Gpu:
    """One card as its data sheet has it: bytes, bytes/s and dense flop/s."""

    name: str
    memory_bytes: float
    bandwidth: float
    fp16_flops: float
    has_bf16: bool
    fp8_flops: float | None
    int8_flops: float | None
    fp4_flops: float | None
    link: str
    link_bandwidth: float
    source: str

    def peak_flops(self, weights: WeightFormat) -> float:
        """Dense peak for products with these weights.

        Where the card has no unit for the format, the weights are expanded to 16 bits first
        (Marlin kernels): fewer bytes, no more flops. int4 is always expanded.
        """
        native = {
            WeightFormat.FP8: self.fp8_flops,
            WeightFormat.INT8: self.int8_flops,
            WeightFormat.FP4: self.fp4_flops,
        }.get(weights)
        return native or self.fp16_flops


@dataclass(frozen=True, slots=True)
class InstanceType:
    """One kind of node: its cards, network and on-demand price (None: not known)."""

    name: str
    gpu: Gpu
    gpu_count: int
    network_bytes_per_s: float
    nvme_bytes: float
    ondemand_usd_per_hour: float | None
    source: str
    vcpus: int = 0
    """What AWS counts quotas in; 0: not known."""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Every GPU and instance type that a question may name."""

    gpus: dict[str, Gpu]
    instances: dict[str, InstanceType]

    def gpu(self, name: str) -> Gpu:
        """The card of this name or alias. Raises `BadInput` with the names that exist."""
        found = self.gpus.get(name.lower())
        if found is None:
            known = sorted({gpu.name for gpu in self.gpus.values()})
            raise BadInput(
                f"unknown GPU {name!r}; the catalogue has {', '.join(known)}. Add others with a "
                "CSV under plan.catalogue.gpus"
            )
        return found

    def instance(self, name: str) -> InstanceType:
        """The instance type of this name. Raises `BadInput` with those that look alike."""
        found = self.instances.get(name)
        if found is None:
            family = name.split(".")[0]
            alike = sorted(i for i in self.instances if i.split(".")[0] == family)
            hint = f"; of that family it has {', '.join(alike)}" if alike else ""
            raise BadInput(
                f"unknown instance type {name!r}: not in the catalogue of {len(self.instances)} "
                f"GPU types{hint}. Add others with a CSV under plan.catalogue.instances"
            )
        return found


def load_catalogue(
    gpu_files: Iterable[Path] = (), instance_files: Iterable[Path] = ()
) -> Catalogue:
    """The shipped catalogue, with the rows of the user's files added or put in its place."""
    gpus: dict[str, Gpu] = {}
    for file in (SHIPPED / "gpus.csv", *gpu_files):
        for where, row in rows_of(file):
            gpu = _gpu(where, row)
            for name in (gpu.name, *row.get("aliases", "").split()):
                gpus[name.lower()] = gpu
    known = Catalogue(gpus, {})
    instances: dict[str, InstanceType] = {}
    for file in (SHIPPED / "instances.csv", *instance_files):
        for where, row in rows_of(file):
            instance = _instance(where, row, known)
            instances[instance.name] = instance
    return Catalogue(gpus, instances)


def rows_of(file: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Rows of a CSV with a header, each with its place for error texts. Raises `BadInput`."""
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(f"catalogue {file}: cannot be read ({error.strerror})") from error
    for number, row in enumerate(csv.DictReader(text.splitlines()), start=2):
        yield f"{file.name} line {number}", {k: (v or "").strip() for k, v in row.items() if k}


def positive(where: str, row: dict[str, str], field: str, *, optional: bool = False) -> float:
    """A number above zero; 0.0 where the field is empty and may be."""
    text = row.get(field, "")
    if not text and optional:
        return 0.0
    try:
        value = float(text)
    except ValueError as error:
        raise BadInput(f"{where}: {field} must be a number, got {text!r}") from error
    if not math.isfinite(value):
        raise BadInput(f"{where}: {field} must be a finite number, got {text}")
    if not value > 0 and not (optional and value == 0):
        raise BadInput(f"{where}: {field} must be above zero, got {text}")
    return value


def _gpu(where: str, row: dict[str, str]) -> Gpu:
    def flops(field: str) -> float | None:
        return positive(where, row, field, optional=True) * 1e12 or None

    return Gpu(
        name=row.get("gpu", "") or _missing(where, "gpu"),
        memory_bytes=positive(where, row, "memory_gb")
        * 1024
        * MIB
        * (positive(where, row, "usable_share", optional=True) or 1.0),
        bandwidth=positive(where, row, "bandwidth_gb_per_s") * GIGA,
        fp16_flops=positive(where, row, "fp16_tflops") * 1e12,
        has_bf16=row.get("has_bf16", "1") != "0",
        fp8_flops=flops("fp8_tflops"),
        int8_flops=flops("int8_tops"),
        fp4_flops=flops("fp4_tflops"),
        link=row.get("link") or "pcie4",
        link_bandwidth=positive(where, row, "link_gb_per_s") * GIGA,
        source=row.get("source", ""),
    )


def _instance(where: str, row: dict[str, str], known: Catalogue) -> InstanceType:
    name = row.get("instance_type", "") or _missing(where, "instance_type")
    gpu = known.gpu(row.get("gpu", ""))
    memory_mib = positive(where, row, "gpu_memory_mib", optional=True)
    if memory_mib:
        gpu = replace(gpu, memory_bytes=memory_mib * MIB)
    return InstanceType(
        name=name,
        gpu=gpu,
        gpu_count=int(positive(where, row, "gpu_count")),
        network_bytes_per_s=positive(where, row, "network_mbps") * 1e6 / 8,
        nvme_bytes=positive(where, row, "nvme_gb", optional=True) * GIGA,
        ondemand_usd_per_hour=positive(where, row, "ondemand_usd_per_hour", optional=True) or None,
        source=row.get("source", ""),
        vcpus=int(positive(where, row, "vcpus", optional=True)),
    )


def _missing(where: str, field: str) -> str:
    raise BadInput(f"{where}: {field} is empty")
