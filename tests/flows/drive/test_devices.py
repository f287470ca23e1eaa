"""Which GPUs a worker gets, and what is refused because some would idle or be missing."""

import json
import sys
import time
from pathlib import Path

import pytest

from flows.drive.ec2_nodes import require_whole_nodes, workers_a_node
from flows.drive.nodes import require_devices
from flows.surroundings import _devices  # pyright: ignore[reportPrivateUsage]
from shunt.errors import JobError
from shunt.fleet.local import LocalFleet, WorkerCommand, devices_of, engines_per_device
from shunt.job.job import Job


def job_of(workers: int = 1, tp: int = 1, types: tuple[str, ...] = ()) -> Job:
    fleet: dict[str, object] = {"workers": workers}
    if types:
        ec2 = {"region": "us-east-1", "subnets": {"a": "s"}, "instance_types": list(types)}
        fleet |= {"kind": "ec2", "ec2": ec2}
    model = {"path": "m", "engine": {"tensor_parallel_size": tp}}
    given = {"name": "n", "model": model, "input": {"path": "p"}, "fleet": fleet}
    return Job.model_validate(given)


@pytest.mark.parametrize(
    ("num_slots", "num_devices", "shares"),
    [
        (8, 8, ["0", "1", "2", "3", "4", "5", "6", "7"]),
        (2, 8, ["0123", "4567"]),
        (3, 8, ["01", "23", "45"]),
        (4, 2, ["0", "1", "0", "1"]),
    ],
)
def test_every_worker_has_gpus_of_its_own_while_there_are_enough(
    num_slots: int, num_devices: int, shares: list[str]
) -> None:
    devices = tuple(str(number) for number in range(num_devices))
    found = ["".join(devices_of(slot, num_slots, devices)) for slot in range(num_slots)]
    assert found == shares
    assert engines_per_device(num_slots, num_devices) == max(1, num_slots // num_devices)


def test_workers_are_told_their_gpus(tmp_path: Path) -> None:
    script = (
        "import os, sys, json; print(json.dumps([os.environ['CUDA_VISIBLE_DEVICES'], sys.argv]))"
    )
    command = WorkerCommand((sys.executable, "-c", script), {}, tmp_path)
    with LocalFleet(command, "tag", num_slots=4, devices=("GPU-a", "GPU-b")) as fleet:
        for slot in range(4):
            fleet.launch(f"worker-{slot}")
        deadline_s = time.monotonic() + 30
        while any(node.exit_code is None for node in fleet.nodes()):
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
    told = [json.loads(log.read_text()) for log in sorted(tmp_path.iterdir())]
    assert [gpus for gpus, _ in told] == ["GPU-a", "GPU-b", "GPU-a", "GPU-b"]
    assert all(arguments[-2:] == ["--engines-per-device", "2"] for _, arguments in told)


def test_engines_that_need_more_gpus_than_their_share_are_refused() -> None:
    require_devices(job_of(workers=8, tp=4), 0)
    require_devices(job_of(workers=2, tp=4), 8)
    with pytest.raises(JobError, match=r"8 workers share 8 .* set fleet.workers to 2"):
        require_devices(job_of(workers=8, tp=4), 8)


def test_a_fleet_is_counted_on_for_the_workers_of_its_smallest_type() -> None:
    job = job_of(tp=2, types=("p5.48xlarge", "g6.12xlarge"))
    assert job.fleet.ec2 is not None
    assert workers_a_node(job, job.fleet.ec2) == 2


def test_a_node_with_gpus_that_would_idle_is_refused_in_words() -> None:
    for tp, types in (
        (1, ("g6.xlarge", "p5.48xlarge")),
        (2, ("g6.12xlarge",)),
        (8, ("p5.48xlarge",)),
    ):
        job = job_of(tp=tp, types=types)
        assert job.fleet.ec2 is not None
        require_whole_nodes(job, job.fleet.ec2)
    for tp, types, what in (
        (3, ("p5.48xlarge",), r"p5\.48xlarge has 8 GPUs, and a worker uses 3, which leaves 2"),
        (2, ("p5.48xlarge", "g6.xlarge"), r"g6\.xlarge has 1 GPUs, and a worker uses 2, .*too few"),
    ):
        job = job_of(tp=tp, types=types)
        assert job.fleet.ec2 is not None
        with pytest.raises(JobError, match=what):
            require_whole_nodes(job, job.fleet.ec2)


def test_the_gpus_of_this_process_are_those_it_was_given_or_all(tmp_path: Path) -> None:
    assert _devices("3, 5", tmp_path) == ("3", "5")
    assert _devices("", tmp_path) == ()
    assert _devices(None, tmp_path / "none") == ()
    (tmp_path / "0000:01:00.0").mkdir()
    (tmp_path / "0000:02:00.0").mkdir()
    assert _devices(None, tmp_path) == ("0", "1")
