"""Nodes that cannot reach the store for a while: they go on, or are replaced, and lose nothing."""

import os
import time
from pathlib import Path

import pytest

from shunt.manifest import list_runs
from shunt.node import read_statuses
from shunt.store.config import StoreConfig, open_configured_store
from shunt.store.protocol import Store
from shunt.testing.fault_proxy import ProxyFault, fault_proxy
from shunt.testing.s3_server import S3Server
from tests.flows.conftest import Desk, lay_out, wait_until
from tests.flows.ec2_site import CENT, SHORT, ec2_site

pytestmark = [pytest.mark.timeout(240), pytest.mark.s3]

LEASES = 4
"""The cut lasts so many lease terms (of two seconds)."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    desk = lay_out(tmp_path_factory.mktemp("undisturbed"), tokens_per_s=None)
    done = desk.shunt("run", "job.yaml", "--no-prefect", "--set", f"sampling={SHORT}")
    assert done.returncode == 0, done.stderr
    return desk


def num_working(store: Store) -> int:
    """Nodes that have saved something."""
    return sum(node.segments > 0 for run in list_runs(store) for node in read_statuses(store, run))


@pytest.mark.parametrize(
    ("silent_s", "num_nodes"), [(60.0, 2), (3.0, 4)], ids=["patient", "replaced"]
)
def test_every_node_is_cut_off_from_the_store_for_a_while(
    tmp_path: Path,
    s3: S3Server,
    undisturbed: Desk,
    monkeypatch: pytest.MonkeyPatch,
    silent_s: float,
    num_nodes: int,
) -> None:
    monkeypatch.setenv("S3_ID", s3.credentials.access_key_id)
    monkeypatch.setenv("S3_SECRET", s3.credentials.secret_access_key)
    store = {
        "uri": f"s3://{s3.bucket}/{tmp_path.name}",
        "endpoint_url": s3.endpoint_url,
        "region": s3.region,
        "access_key_id_env": "S3_ID",
        "secret_access_key_env": "S3_SECRET",
    }
    with (
        fault_proxy(s3.endpoint_url) as way,
        ec2_site(
            tmp_path,
            tokens_per_s=4,
            store=store,
            nodes_store=store | {"endpoint_url": way.url},
            silent_s=silent_s,
        ) as at,
    ):
        run = at.start("run", "job.yaml", "--no-prefect")
        opened = open_configured_store(StoreConfig.model_validate(store), environment=os.environ)
        wait_until(lambda: num_working(opened) == 2)
        way.choose = lambda _request: ProxyFault.RESET
        cut_until_s = time.monotonic() + 2.0 * LEASES
        wait_until(lambda: time.monotonic() > cut_until_s)
        wait_until(lambda: len(at.cloud.double.instances) == num_nodes)
        way.choose = lambda _request: None
        done = at.end(run)

        assert done.returncode == 0, done.stderr
        assert way.counts[ProxyFault.RESET] > 10
        assert at.desk.texts() == undisturbed.texts()
        assert len(at.cloud.double.instances) == num_nodes
        assert at.cloud.living() == []
        assert f"they cost {at.cloud.double.bill_usd().quantize(CENT)} USD" in done.stdout
