"""What Slurm, Ray and SkyPilot start, started here by hand, with a real SIGTERM: the clusters
themselves were tried by hand (docs/clusters.md)."""

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from tests.flows.conftest import REPOSITORY, UNSET, Desk, lay_out, wait_until

WORKER = REPOSITORY / ".venv/worker/bin/python"
RAY = REPOSITORY / "deployments/ray/join_run.py"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A run that is prepared and takes long."""
    desk = lay_out(tmp_path, tokens_per_s=4)
    joined = ("--set", "fleet.kind=joined", "--prepare")
    assert desk.shunt("run", "job.yaml", "--no-prefect", *joined).returncode == 0
    return desk


def environment(desk: Desk, **more: str) -> dict[str, str]:
    ours = {k: v for k, v in os.environ.items() if k not in UNSET}
    store = {"SHUNT_RUN": "small", "SHUNT_STORE": str(desk.directory / "runs")}
    return {**ours, **store, "SHUNT_WORKER_PYTHON": str(WORKER), **more}


def drained(desk: Desk, argv: list[str], env: dict[str, str]) -> tuple[int, str]:
    """Exit code and log of a process that is told to leave in the middle of the work."""
    process = subprocess.Popen(
        argv, cwd=REPOSITORY, env=env, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        wait_until(lambda: len(desk.segments()) > 2)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=100)
    finally:
        process.kill()
        process.wait()
    assert not any("workers.join" in line for line in desk.processes())
    assert "what it generated is saved" in said
    return process.returncode, said


def test_slurm_s_batch_script_drains_its_worker_and_is_queued_again(
    desk: Desk, tmp_path: Path
) -> None:
    scontrol = tmp_path / "bin/scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n')
    scontrol.chmod(0o755)
    job = {"SLURM_JOB_ID": "8", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}
    path = f"{scontrol.parent}:{os.environ['PATH']}"
    script = str(REPOSITORY / "deployments/slurm/workers.sbatch")
    code, said = drained(desk, ["bash", script], environment(desk, PATH=path, **job))
    assert code == 75
    assert "as worker slurm-7-3-0" in said
    assert (tmp_path / "asked").read_text() == "requeue 8\n"


def test_skypilot_s_task_is_its_worker(desk: Desk) -> None:
    task = yaml.safe_load((REPOSITORY / "deployments/skypilot/workers.yaml").read_text())
    limit = {"SHUNT_DRAIN_LIMIT_S": task["envs"]["SHUNT_DRAIN_LIMIT_S"]}
    assert set(task["envs"]) == {"SHUNT_RUN", "SHUNT_STORE", *limit}
    env = environment(desk, SKYPILOT_NODE_RANK="2", **limit)
    code, said = drained(desk, ["bash", "-c", task["run"]], env)
    assert code in task["resources"]["job_recovery"]["recover_on_exit_codes"]
    assert "as worker sky-2-" in said


def ray_entry() -> ModuleType:
    """It imports Ray only where it runs."""
    spec = importlib.util.spec_from_file_location("join_run", RAY)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_ray_s_task_takes_its_worker_with_it(desk: Desk) -> None:
    """It is told to leave as Ray tells a task: an exception in its main thread."""
    attend = (
        "import os, runpy, signal, sys\n"
        "def told(*_): raise KeyboardInterrupt\n"
        "signal.signal(signal.SIGTERM, told)\n"
        f"entry = runpy.run_path({str(RAY)!r})\n"
        "options = entry['_options'](sys.argv[1:])\n"
        "entry['attend'](entry['worker_argv'](options), environment=os.environ, limit_s=60)\n"
    )
    words = ["small", "--store", str(desk.directory / "runs"), "--python", str(WORKER)]
    env = environment(desk, PYTHONPATH=str(REPOSITORY))
    code, said = drained(desk, [sys.executable, "-c", attend, *words], env)
    assert code != 0
    assert "because it was told to (SIGTERM)" in said


def test_ray_s_task_that_is_killed_leaves_no_worker_behind(desk: Desk) -> None:
    entry = ray_entry()
    options = entry._options(["small", "--store", str(desk.directory / "runs")])
    argv = [str(WORKER), *entry.worker_argv(options)[1:]]
    worker = subprocess.Popen(
        argv,
        env=environment(desk, PYTHONPATH=str(REPOSITORY)),
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: len(desk.segments()) > 2)
        assert worker.stdin is not None
        worker.stdin.close()  # as the kernel does when the task's process is gone
        assert worker.wait(100) == 75
    finally:
        worker.kill()
        worker.wait()


def test_ray_starts_a_worker_again_where_that_helps() -> None:
    again = ray_entry().again
    assert [again(code, 0) for code in (75, -9, 1, 0, 2, 78)] == [True, True, *[False] * 4]
    assert again(1, 1)
