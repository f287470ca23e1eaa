"""Whether a node can do its work, looked at before any engine starts: a sentence for each fault.

An engine on an unfit machine dies minutes later with a traceback of a library; these checks name
the cause and the remedy, and are told in the store before the node ends.
"""

import csv
import os
import re
import resource
import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from shunt.errors import ShuntError
from shunt.plan.plan import Plan

CACHE_VARIABLES = (
    "HOME",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "HF_HOME",
    "SHUNT_MODEL_CACHE",
    "VLLM_CACHE_ROOT",
    "VLLM_CONFIG_ROOT",
    "TRITON_CACHE_DIR",
    "TORCHINDUCTOR_CACHE_DIR",
    "FLASHINFER_WORKSPACE_BASE",
    "CUDA_CACHE_PATH",
    "NUMBA_CACHE_DIR",
)
"""Where vLLM, Triton, torch, FlashInfer, CUDA and the hub's client write."""
DRIVER_OF_CUDA = {12: 525, 13: 580}
"""The oldest driver for each major version of CUDA (CUDA's release notes, table 3): minor versions
of one major version are compatible."""
MIN_SHM_BYTES = 1 << 30
"""vLLM's processes hand steps to each other in shared memory, and NCCL its buffers."""
MIN_FILES = 4096
"""Sockets and shared memory of an engine with several processes; systemd's default is 1024."""
MAX_CLOCK_OFFSET_S = 300.0
"""AWS refuses a request that was signed by a clock 15 minutes off (5 for S3's presigned ones)."""


PCI_DEVICES = Path("/sys/bus/pci/devices")
_NVIDIA = "0x10de"
_DISPLAYS = ("0x0300", "0x0302")
"""PCI classes of GPUs (pci.ids: VGA and 3D controllers); NVSwitches are bridges, 0x0680."""


class NodeUnfit(ShuntError):
    """The machine cannot do the work; another start on it would end the same way."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A device as the driver tells of it."""

    name: str
    memory_bytes: int
    driver: str


@dataclass(frozen=True, slots=True)
class Machine:
    """What is looked at, so that tests can make one up."""

    environment: Mapping[str, str]
    gpus: tuple[Gpu, ...] | None
    """None: there is no driver."""
    cuda: str
    """Of the installed lock; empty for a build without CUDA."""
    shm_bytes: int
    num_files: int
    """Most files that a process may open."""
    clock_offset_s: float | None
    """By which this clock is ahead of the provider's; None: unknown."""
    instance_type: str
    has_compiler: bool
    num_on_bus: int = 0
    """NVIDIA's GPUs on the PCI bus: one that has failed stays there when its driver drops it."""


@dataclass(frozen=True, slots=True)
class Needed:
    """What the run asks of the node."""

    num_gpus: int
    gpu: str = ""
    """Name of the card by the plan, such as L4; empty: any."""
    instance_type: str = ""
    """By the plan; empty: any."""
    weight_bytes_per_gpu: int = 0
    whole_node: bool = False
    """Every GPU of the node is to work, `num_gpus` for each worker: there is no plan."""


def needed_of_plan(plan: Plan, slot: str) -> Needed:
    """What the plan puts on the node of this slot; nothing where it is of a newer plan."""
    if slot not in {node.slot for node in plan.nodes}:
        return Needed(num_gpus=0)
    node = plan.node(slot)
    stages = [stage for pipeline in plan.pipelines for stage in pipeline.stages]
    used = [stage.first_gpu + stage.tp for stage in stages if stage.slot == slot]
    return Needed(max(used, default=0), node.gpu, node.instance_type)


def this_machine(
    environment: Mapping[str, str], instance_type: str, clock_offset_s: float | None
) -> Machine:
    """The machine that we are on. Raises the soft limit of open files to the hard one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    shm = os.statvfs("/dev/shm")
    return Machine(
        environment=environment,
        gpus=gpus_here(),
        cuda=cuda_of_lock(),
        shm_bytes=shm.f_blocks * shm.f_frsize,
        num_files=hard,
        clock_offset_s=clock_offset_s,
        instance_type=instance_type,
        has_compiler=any(shutil.which(name) for name in ("gcc", "clang", "cc")) and _has_headers(),
        num_on_bus=num_on_bus(PCI_DEVICES),
    )


def faults(machine: Machine, needed: Needed) -> list[str]:
    """What is wrong, each in one sentence with its remedy; empty where nothing is."""
    checks = (_caches, _memory_and_files, _clock, _type, _devices)
    return [fault for check in checks for fault in check(machine, needed)]


def require_fit(machine: Machine, needed: Needed) -> None:
    """Raises `NodeUnfit` with all that is wrong."""
    if found := faults(machine, needed):
        raise NodeUnfit("; ".join(found))


def cuda_of_lock(installed: Callable[[str], str] = version) -> str:
    """Version of the CUDA runtime that torch was installed with; empty for a CPU build."""
    try:
        return installed("nvidia-cuda-runtime")
    except PackageNotFoundError:
        return ""


def _caches(machine: Machine, _needed: Needed) -> Iterator[str]:
    for name in CACHE_VARIABLES:
        if not (where := machine.environment.get(name)):
            continue
        reason = _unwritable(Path(where))
        if reason:
            yield f"cache {where} ({name}) cannot be written: {reason}"


def _unwritable(folder: Path) -> str:
    probe = folder / f".shunt-probe-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _memory_and_files(machine: Machine, _needed: Needed) -> Iterator[str]:
    if machine.shm_bytes < MIN_SHM_BYTES:
        yield (
            f"/dev/shm has {machine.shm_bytes / 2**30:.2f} GiB, an engine needs "
            f"{MIN_SHM_BYTES / 2**30:.0f}: take a larger type, or mount it with size="
        )
    if machine.num_files < MIN_FILES:
        yield (
            f"a process may open {machine.num_files} files, an engine needs {MIN_FILES}: raise "
            "LimitNOFILE in shunt-worker.service"
        )


def _clock(machine: Machine, _needed: Needed) -> Iterator[str]:
    offset_s = machine.clock_offset_s
    if offset_s is not None and abs(offset_s) > MAX_CLOCK_OFFSET_S:
        ahead = "ahead of" if offset_s > 0 else "behind"
        yield (
            f"the clock is {abs(offset_s):.0f} s {ahead} the provider's, and AWS refuses what is "
            "signed by it: the image needs chrony with 169.254.169.123"
        )


def _type(machine: Machine, needed: Needed) -> Iterator[str]:
    if needed.instance_type and machine.instance_type not in ("", needed.instance_type):
        yield (
            f"the slot is planned for {needed.instance_type}, and this is a {machine.instance_type}"
        )


def _devices(machine: Machine, needed: Needed) -> Iterator[str]:
    if not machine.cuda:
        return  # a build for CPUs
    if not machine.has_compiler:
        yield (
            "there is no C compiler or no Python.h, which Triton needs for its first kernel: "
            "install gcc and the headers of this Python in the image"
        )
    if machine.gpus is None:
        yield (
            "there is no NVIDIA driver (nvidia-smi fails), and the lock is for CUDA "
            f"{machine.cuda}: take an image with a driver of {_oldest(machine.cuda)} or newer"
        )
        return
    yield from _driver(machine)
    if len(machine.gpus) < needed.num_gpus:
        yield (
            f"{len(machine.gpus)} GPUs are here, the slot needs {needed.num_gpus}: lower "
            "tensor_parallel_size, or name a larger type"
        )
    elif needed.whole_node:
        yield from _idle(len(machine.gpus), machine.num_on_bus, needed.num_gpus)
    for gpu in machine.gpus[:1]:
        if needed.gpu and not _is_a(gpu.name, needed.gpu):
            yield f"the GPU is a {gpu.name}, and the slot is planned for {needed.gpu}"
        if gpu.memory_bytes < needed.weight_bytes_per_gpu:
            yield (
                f"a {gpu.name} has {gpu.memory_bytes / 2**30:.1f} GiB, and its share of the "
                f"weights is {needed.weight_bytes_per_gpu / 2**30:.1f} GiB: use more GPUs "
                "(tensor_parallel_size) or a larger card"
            )


def _idle(num_gpus: int, num_on_bus: int, per_worker: int) -> Iterator[str]:
    """GPUs that are paid and would not work. The catalogue knows most types, not all."""
    if num_gpus < num_on_bus:
        yield (
            f"{num_on_bus} GPUs are in the machine, and its driver shows {num_gpus}: one has "
            "failed, let the provider replace the machine"
        )
    elif left := num_gpus % per_worker if per_worker else 0:
        yield (
            f"{num_gpus} GPUs are here, and a worker uses {per_worker}, which leaves {left} idle: "
            f"set tensor_parallel_size to a divisor of {num_gpus}, or name other types"
        )


def _driver(machine: Machine) -> Iterator[str]:
    assert machine.gpus is not None
    oldest = _oldest(machine.cuda)
    for driver in {gpu.driver for gpu in machine.gpus}:
        if _major(driver) < oldest:
            yield (
                f"driver {driver} is too old for CUDA {machine.cuda} of the lock, which needs "
                f"{oldest} or newer: take a newer image"
            )


def _oldest(cuda: str) -> int:
    major = _major(cuda)
    return DRIVER_OF_CUDA.get(major, max(DRIVER_OF_CUDA.values()))


def _major(text: str) -> int:
    return int(text.split(".", 1)[0])


def _is_a(told: str, planned: str) -> bool:
    """Whether the driver's name of a card (NVIDIA A100-SXM4-40GB) may be that of the planned one
    (A100-40GB-SXM): by the words up to the first with a digit in it, as form and memory are written
    in many ways. A card beside a Grace has a G in front."""
    words = _words(told)
    chip: list[str] = []
    for word in _words(planned):
        chip.append(word)
        if re.search(r"\d", word):
            break
    return all(word in words or f"g{word}" in words for word in chip)


def _words(name: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", name.lower())


def num_on_bus(devices: Path) -> int:
    """Display and 3D controllers of NVIDIA below `devices`, a folder as `PCI_DEVICES`."""

    def told(device: Path, name: str) -> str:
        try:
            return (device / name).read_text().strip()
        except OSError:
            return ""

    found = devices.glob("*") if devices.is_dir() else ()
    return sum(
        told(device, "vendor") == _NVIDIA and told(device, "class").startswith(_DISPLAYS)
        for device in found
    )


@cache
def gpus_here() -> tuple[Gpu, ...] | None:
    """As the driver says, asked once: it takes seconds on a machine with many. None: no driver."""
    asked = [
        "nvidia-smi",
        "--query-gpu=name,memory.total,driver_version",
        "--format=csv,noheader,nounits",
    ]
    try:
        told = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    rows = csv.reader(told.stdout.splitlines(), skipinitialspace=True)
    return tuple(Gpu(name, int(float(mib)) << 20, driver) for name, mib, driver in rows)


def _has_headers() -> bool:
    return (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file()
