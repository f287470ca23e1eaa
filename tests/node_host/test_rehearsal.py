"""The node from its first boot to its end, on a machine of its own with real systemd.

SHUNT_NODE_ROOT=... python -m pytest -m soak tests/node_host
"""

import os
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shunt.checkpoint.done import read_done
from shunt.run.manifest import Manifest
from shunt.run.node_status import NodeState, NodeStatus, read_status
from shunt.run.status import StatusReader
from shunt.testing.s3_server import S3Server, s3_server
from tests.node_host.machine import Machine, machine, wait_until
from tests.node_host.site import NODE, S3_NAME, Site, prepared_run, site

pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(1800),
    # Connections of a machine that powers off are cut wherever they are.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces and mounts need root"),
]
WORK_S = 900.0
"""Of a machine that others use too."""


@pytest.fixture(scope="module")
def server() -> Generator[S3Server]:
    with s3_server(domain=S3_NAME) as running:
        yield running


@pytest.fixture
def node(tmp_path: Path) -> Generator[Machine]:
    with machine(tmp_path / "node") as off:
        yield off


def run_of(server: S3Server, tmp_path: Path, name: str, num_rows: int = 12) -> Manifest:
    return prepared_run(server, tmp_path, name=name, num_rows=num_rows)


def status_of(at: Site) -> NodeStatus | None:
    return read_status(at.store, at.manifest.run_id, NODE)


def state_of(at: Site) -> NodeState | None:
    status = status_of(at)
    return status.state if status else None


def num_done(at: Site) -> int:
    done: dict[str, object] = {}
    read_done(at.store, at.manifest.run_id, into=done)  # pyright: ignore[reportArgumentType]
    return len(done)


def test_a_node_boots_fetches_works_and_powers_off(
    node: Machine, server: S3Server, tmp_path: Path
) -> None:
    with site(node, server, run_of(server, tmp_path, "whole")) as at:
        at.first_boot()
        node.wait_off(WORK_S)
        status = status_of(at)
        assert status is not None, node.journal()
        assert status.exit_code == 0, node.journal("shunt-worker")
        assert num_done(at) == len(at.manifest.shards)
        assert "model is here folder=/var/cache/shunt/models/" in node.journal("shunt-worker")


def test_a_notice_drains_the_node(node: Machine, server: S3Server, tmp_path: Path) -> None:
    with site(node, server, run_of(server, tmp_path, "notice", 400)) as at:
        at.first_boot()
        wait_until(lambda: (s := status_of(at)) and s.output_tokens > 0, WORK_S)
        at.metadata.interruption_at = datetime.now(UTC) + timedelta(seconds=120)
        node.wait_off(120.0)
        status = status_of(at)
        assert status is not None
        assert (status.exit_code, status.unsaved_tokens, status.shards) == (75, 0, {})


def test_the_deadline_powers_off_whatever_the_worker_does(
    node: Machine, server: S3Server, tmp_path: Path
) -> None:
    with site(node, server, run_of(server, tmp_path, "deadline", 400)) as at:
        at.first_boot()
        wait_until(lambda: state_of(at) is not None, WORK_S)
        at.metadata.failing = 3  # a look at a service that fails ends nothing
        assert node.is_on
        at.expire(datetime.now(UTC))
        node.wait_off(60.0 + 95.0 + 60.0)
        assert "powering off: the deadline" in node.journal("shunt-deadline")


def test_a_cache_that_cannot_be_written_is_told_and_the_node_goes(
    node: Machine, server: S3Server, tmp_path: Path
) -> None:
    with site(node, server, run_of(server, tmp_path, "nocache")) as at:
        (node.root / "var/cache/shunt").mkdir(parents=True, exist_ok=True)
        node.run("touch", "/var/cache/shunt/triton")  # a file where the folder should be
        at.first_boot()
        node.wait_off(WORK_S)
        (failed,) = StatusReader(at.store, at.manifest.run_id).read().failed
        assert failed.exit_code == 78
        assert "cache /var/cache/shunt/triton (TRITON_CACHE_DIR)" in failed.failure


def test_a_model_that_is_gone_is_told_and_the_node_goes(
    node: Machine, server: S3Server, tmp_path: Path
) -> None:
    manifest = run_of(server, tmp_path, "nomodel")
    assert manifest.model is not None
    gone = manifest.model.files[-1].model_copy(update={"name": "no-such.safetensors"})
    files = (*manifest.model.files[:-1], gone)
    manifest = manifest.model_copy(
        update={"run_id": "nomodel-2", "model": manifest.model.model_copy(update={"files": files})}
    )
    with site(node, server, manifest) as at:
        at.store.put("runs/nomodel-2/manifest.json", manifest.model_dump_json().encode())
        at.first_boot()
        node.wait_off(WORK_S)
        (failed,) = StatusReader(at.store, "nomodel-2").read().failed
        assert failed.exit_code == 78
        assert "no-such.safetensors: no such object" in failed.failure
