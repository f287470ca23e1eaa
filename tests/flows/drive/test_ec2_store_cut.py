"""Nodes that cannot reach the store for a while: they go on, or are replaced, and lose nothing."""

import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from shunt.run.manifest import list_runs
from shunt.run.node_status import read_statuses
from shunt.store.config import StoreConfig, open_configured_store
from shunt.store.protocol import Store
from shunt.testing.fault_proxy import FaultProxy, ProxyFault, fault_proxy
from shunt.testing.s3_server import S3Server
from tests.flows.conftest import wait_until
from tests.flows.ec2_site import CENT, Site, ec2_site

pytestmark = [pytest.mark.timeout(300), pytest.mark.s3]

Done = subprocess.CompletedProcess[str]

CUT_S = 10.0
TERM_S = 4.0
"""Of a lease: every lease lapses during the cut."""


def num_working(store: Store) -> int:
    """Nodes that have saved something."""
    return sum(node.segments > 0 for run in list_runs(store) for node in read_statuses(store, run))


@pytest.fixture
def s3_store(tmp_path: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The store section of a job whose run lives on the S3 server."""
    monkeypatch.setenv("S3_ID", s3.credentials.access_key_id)
    monkeypatch.setenv("S3_SECRET", s3.credentials.secret_access_key)
    return {
        "uri": f"s3://{s3.bucket}/{tmp_path.name}",
        "endpoint_url": s3.endpoint_url,
        "region": s3.region,
        "access_key_id_env": "S3_ID",
        "secret_access_key_env": "S3_SECRET",
    }


def cut_off(at: Site, way: FaultProxy, store: dict[str, Any], for_s: float, num_nodes: int) -> Done:
    """Run the job; no node reaches the store for a while, and until there are so many of them."""
    run = at.start("run", "job.yaml", "--no-prefect")
    opened = open_configured_store(StoreConfig.model_validate(store), environment=os.environ)
    wait_until(lambda: num_working(opened) == 2)
    way.choose = lambda _request: ProxyFault.RESET
    until_s = time.monotonic() + for_s
    wait_until(lambda: time.monotonic() > until_s, timeout_s=for_s + 60)
    wait_until(lambda: len(at.cloud.double.instances) == num_nodes)
    way.choose = lambda _request: None
    return at.end(run, timeout_s=120 + 3 * for_s)


def check_whole(at: Site, done: Done, undisturbed: dict[str, str], num_nodes: int) -> None:
    assert done.returncode == 0, done.stderr
    assert at.desk.texts() == undisturbed
    assert len(at.cloud.double.instances) == num_nodes
    assert at.cloud.living() == []
    assert f"they cost {at.cloud.double.bill_usd().quantize(CENT)} USD" in done.stdout


@pytest.mark.parametrize(
    ("silent_s", "num_nodes"),
    [
        pytest.param(60.0, 2, marks=pytest.mark.soak, id="patient"),
        pytest.param(6.0, 4, id="replaced"),
    ],
)
def test_every_node_is_cut_off_from_the_store_for_a_while(
    tmp_path: Path,
    undisturbed: dict[str, str],
    s3_store: dict[str, Any],
    silent_s: float,
    num_nodes: int,
) -> None:
    with (
        fault_proxy(s3_store["endpoint_url"]) as way,
        ec2_site(
            tmp_path,
            tokens_per_s=8,
            job={"lease_term_s": TERM_S},
            store=s3_store,
            nodes_store=s3_store | {"endpoint_url": way.url},
            silent_s=silent_s,
        ) as at,
    ):
        done = cut_off(at, way, s3_store, CUT_S, num_nodes)

        assert way.counts[ProxyFault.RESET] > 10
        check_whole(at, done, undisturbed, num_nodes)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("silent_s", "num_nodes"), [(600.0, 2), (180.0, 4)])
def test_every_node_is_cut_off_from_the_store_for_five_minutes(
    tmp_path: Path,
    undisturbed: dict[str, str],
    s3_store: dict[str, Any],
    silent_s: float,
    num_nodes: int,
) -> None:
    """With the lease, the cadence, the notice and the intervals that a job has by default. Nodes
    that are waited for lose nothing; those that are replaced, what they made since the cut."""
    real = {"lease_term_s": 30, "checkpoint_interval_s": 10}
    with (
        fault_proxy(s3_store["endpoint_url"]) as way,
        ec2_site(
            tmp_path,
            tokens_per_s=0.5,
            notice_s=120.0,
            job=real,
            store=s3_store,
            nodes_store=s3_store | {"endpoint_url": way.url},
            silent_s=silent_s,
            observe_interval_s=5.0,
        ) as at,
    ):
        done = cut_off(at, way, s3_store, 300.0, num_nodes)

        check_whole(at, done, undisturbed, num_nodes)
        resumed = [row for row in at.desk.rows() if row["num_resumes"]]
        assert bool(resumed) == (num_nodes == 4)
