"""The manifests are what Kubernetes takes, and do with our exit codes what those mean."""

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from flows.exit_code import ExitCode
from shunt.fleet.worker_exit import WorkerExit
from tests.flows.conftest import REPOSITORY, UNSET, lay_out, wait_until

FOLDER = REPOSITORY / "deployments/kubernetes"
WORKERS = ("workers.yaml", "workers-indexed.yaml")
VERSIONS = ("1.33", "1.37")
"""The oldest that knows an index of its own, and the newest whose schemas are here."""


def objects(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


def job(name: str) -> dict[str, Any]:
    (found,) = objects(name)
    return found


def action(spec: dict[str, Any], exit_code: int) -> str:
    """What becomes of a pod that ends so, by the first rule that speaks of it."""
    for rule in spec["podFailurePolicy"]["rules"]:
        if exit_code in rule.get("onExitCodes", {}).get("values", []):
            return rule["action"]
    return "Count"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.name)
def test_manifests_fit_the_published_schemas(path: Path, version: str) -> None:
    for found in objects(path.name):
        kubernetes_validate.validate(found, version, strict=True)


@pytest.mark.parametrize("name", WORKERS)
def test_a_worker_is_given_longer_to_leave_than_it_takes(name: str) -> None:
    pod = job(name)["spec"]["template"]["spec"]
    (worker,) = pod["containers"]
    limit_s = float(worker["args"][worker["args"].index("--drain-limit-s") + 1])
    assert limit_s < pod["terminationGracePeriodSeconds"] < 120
    assert pod["securityContext"]["runAsNonRoot"]


def test_pods_that_left_are_replaced_and_hopeless_ones_are_not() -> None:
    queue, indexed = (job(name)["spec"] for name in WORKERS)
    for spec in (queue, indexed):
        assert action(spec, WorkerExit.DRAINED) == "Ignore"
        assert action(spec, WorkerExit.BUG) == "Count"
        assert action(spec, ExitCode.USAGE) == "FailJob"
    assert "completions" not in queue, "one pod that finds nothing left says so for all"
    assert action(indexed, WorkerExit.UNFIT) == "FailIndex"
    driver = job("driver.yaml")["spec"]
    assert action(driver, ExitCode.INTERRUPTED) == "Ignore"
    assert action(driver, ExitCode.FAILED) == "Count"
    for code in (ExitCode.USAGE, ExitCode.ROW_ERRORS, ExitCode.LIMIT):
        assert action(driver, code) == "FailJob"


@pytest.mark.parametrize("name", WORKERS)
def test_the_container_drains_at_sigterm(tmp_path: Path, name: str) -> None:
    """What the kubelet would run, with the image's entry point and a real signal."""
    desk = lay_out(tmp_path, tokens_per_s=8)
    fleet = ("--set", "fleet.kind=joined", "--prepare")
    assert desk.shunt("run", "job.yaml", "--no-prefect", *fleet).returncode == 0
    spec = job(name)["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    values = {"SHUNT_RUN": "small", "SHUNT_STORE": str(tmp_path / "runs"), "POD_NAME": "pod-x1"}
    assert set(values) == {entry["name"] for entry in container["env"]}
    args = list(container["args"])
    for variable, value in values.items():
        args = [word.replace(f"$({variable})", value) for word in args]
    environment = {k: v for k, v in os.environ.items() if k not in UNSET}
    pod = subprocess.Popen(
        [REPOSITORY / ".venv/worker/bin/python", "-m", "workers.join", *args],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": str(REPOSITORY)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: len(desk.segments()) > 2)
        pod.send_signal(signal.SIGTERM)
        _, said = pod.communicate(timeout=100)
    finally:
        pod.kill()
        pod.wait()
    assert "as worker pod-x1" in said
    assert action(spec, pod.returncode) == "Ignore", said
