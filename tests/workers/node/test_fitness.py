from dataclasses import replace
from pathlib import Path

import pytest

from workers.node.fitness import (
    Gpu,
    Machine,
    Needed,
    NodeUnfit,
    cuda_of_lock,
    faults,
    gpus_here,
    num_on_bus,
    require_fit,
    this_machine,
)

L4 = Gpu("NVIDIA L4", 23034 << 20, "580.95.05")
FIT = Machine(
    environment={},
    gpus=(L4,),
    cuda="13.0.96",
    shm_bytes=8 << 30,
    num_files=1_048_576,
    clock_offset_s=0.4,
    instance_type="g6.xlarge",
    has_compiler=True,
)
NEEDED = Needed(num_gpus=1, gpu="L4", instance_type="g6.xlarge", weight_bytes_per_gpu=8 << 30)


def test_a_machine_as_planned_is_fit() -> None:
    require_fit(FIT, NEEDED)


@pytest.mark.parametrize(
    ("machine", "told"),
    [
        (replace(FIT, gpus=None), r"no NVIDIA driver .* 580 or newer"),
        (replace(FIT, gpus=(replace(L4, driver="550.163"),)), "driver 550.163 is too old for CUDA"),
        (replace(FIT, gpus=()), "0 GPUs are here, the slot needs 1"),
        (replace(FIT, gpus=(Gpu("Tesla T4", 15 << 30, "580.1"),)), "is a Tesla T4, .* for L4"),
        (replace(FIT, gpus=(replace(L4, memory_bytes=4 << 30),)), "4.0 GiB, and its share"),
        (
            replace(FIT, instance_type="g5.xlarge"),
            "planned for g6.xlarge, and this is",
        ),
        (replace(FIT, shm_bytes=64 << 20), "/dev/shm has 0.06 GiB"),
        (replace(FIT, num_files=1024), "may open 1024 files"),
        (replace(FIT, clock_offset_s=-3600.0), "3600 s behind the provider's"),
        (replace(FIT, has_compiler=False), r"no C compiler or no Python\.h"),
    ],
)
def test_each_fault_is_one_sentence_with_its_remedy(machine: Machine, told: str) -> None:
    (fault,) = faults(machine, NEEDED)
    with pytest.raises(NodeUnfit, match=told):
        require_fit(machine, NEEDED)
    assert ":" in fault or "planned for" in fault
    assert "\n" not in fault


def test_a_cache_that_cannot_be_written_is_named_with_its_variable(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    caches = {"HOME": str(tmp_path / "home"), "TRITON_CACHE_DIR": str(in_the_way / "triton")}
    (fault,) = faults(replace(FIT, environment=caches), NEEDED)
    assert fault.startswith(f"cache {in_the_way}/triton (TRITON_CACHE_DIR) cannot be written: ")
    assert (tmp_path / "home").is_dir()


def test_a_build_for_cpus_needs_no_gpu() -> None:
    machine = replace(FIT, cuda="", gpus=None, has_compiler=False)
    assert faults(machine, replace(NEEDED, num_gpus=0)) == []


def test_this_very_machine_can_be_looked_at() -> None:
    machine = this_machine({}, "", None)
    assert machine.shm_bytes > 0
    assert machine.num_files > 0
    assert cuda_of_lock(lambda name: f"{name} 13.0") == "nvidia-cuda-runtime 13.0"


@pytest.mark.parametrize(
    ("told", "planned"),
    [
        ("Tesla T4", "T4"),
        ("Tesla V100-SXM2-16GB", "V100-SXM2-16GB"),
        ("NVIDIA A10G", "A10G"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA A100-SXM4-40GB", "A100-40GB-SXM"),
        ("NVIDIA A100 80GB PCIe", "A100-80GB-PCIe"),
        ("NVIDIA H100 80GB HBM3", "H100-SXM"),
        ("NVIDIA H100 NVL", "H100-NVL"),
        ("NVIDIA H200", "H200-SXM"),
        ("NVIDIA B200", "B200-SXM"),
        ("NVIDIA GB200", "B200-SXM"),
        ("NVIDIA GH200 480GB", "GH200-96GB"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTX-PRO-6000-BSE"),
    ],
)
def test_drivers_and_catalogue_name_the_same_cards(told: str, planned: str) -> None:
    """Names as nvidia-smi writes them, and as the catalogue does."""
    card = replace(L4, name=told, memory_bytes=200 << 30)
    assert faults(replace(FIT, gpus=(card,)), replace(NEEDED, gpu=planned)) == []


@pytest.mark.parametrize(
    ("told", "planned"),
    [("NVIDIA L40S", "L4"), ("NVIDIA A10G", "A10"), ("NVIDIA A100-SXM4-40GB", "H100-SXM"),
     ("NVIDIA RTX 6000 Ada Generation", "RTX-PRO-6000-BSE")],
)  # fmt: skip
def test_a_card_of_another_name_is_another_card(told: str, planned: str) -> None:
    card = replace(L4, name=told, memory_bytes=200 << 30)
    (fault,) = faults(replace(FIT, gpus=(card,)), replace(NEEDED, gpu=planned))
    assert f"the GPU is a {told}, and the slot is planned for {planned}" in fault


@pytest.mark.parametrize(
    ("seen", "on_bus", "per_worker", "told"),
    [
        (8, 8, 1, ""),
        (8, 8, 4, ""),
        (8, 0, 4, ""),  # a bus that tells nothing
        (7, 8, 1, "8 GPUs are in the machine, and its driver shows 7"),
        (6, 6, 4, "6 GPUs are here, and a worker uses 4, which leaves 2 idle"),
        (2, 2, 4, "2 GPUs are here, the slot needs 4"),
    ],
)
def test_all_gpus_of_a_node_without_a_plan_are_to_work(
    seen: int, on_bus: int, per_worker: int, told: str
) -> None:
    machine = replace(FIT, gpus=(L4,) * seen, num_on_bus=on_bus)
    found = faults(machine, Needed(per_worker, whole_node=True))
    assert [told in fault for fault in found] == ([True] if told else [])


def test_a_plan_may_use_a_part_of_the_node() -> None:
    assert not faults(replace(FIT, gpus=(L4,) * 3, num_on_bus=4), replace(NEEDED, num_gpus=2))


def test_gpus_are_counted_on_the_bus(tmp_path: Path) -> None:
    kinds = {"0x10de 0x030200": 3, "0x10de 0x030000": 1, "0x10de 0x068000": 6, "0x1d0f 0x030000": 1}
    for kind, count in kinds.items():
        vendor, class_ = kind.split()
        for number in range(count):
            device = tmp_path / f"{vendor}-{class_}-{number}"
            device.mkdir()
            (device / "vendor").write_text(f"{vendor}\n")
            (device / "class").write_text(f"{class_}\n")
    (tmp_path / "empty").mkdir()
    assert num_on_bus(tmp_path) == 4
    assert num_on_bus(tmp_path / "none") == 0


def test_the_driver_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = tmp_path / "nvidia-smi"
    told.write_text(f"#!/bin/sh\necho x >> {tmp_path}/asked\necho 'NVIDIA L4, 23034, 580.95.05'\n")
    told.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    gpus_here.cache_clear()
    try:
        assert this_machine({}, "g6.xlarge", None).gpus == gpus_here() == (L4,)
    finally:
        gpus_here.cache_clear()
    assert (tmp_path / "asked").read_text() == "x\n"
