"""Nodes with several GPUs and no plan: each has a worker for as many GPUs as an engine needs."""

import json
from pathlib import Path

import pytest

from shunt import keys
from shunt.aws.nodes.pool import Pool
from shunt.testing.ec2.market import Market
from tests.flows.conftest import wait_until
from tests.flows.ec2_site import SLOW, START, ZONES, Site, check_whole, ec2_site

pytestmark = pytest.mark.timeout(300)

EIGHT = "g6.48xlarge"


def prices() -> Market:
    market = Market()
    for zone in ZONES:
        market.set_price(Pool(EIGHT, zone, "spot"), START, "3.6")
        market.set_price(Pool(EIGHT, zone, "on-demand"), START, "36")
    return market


def workers_of(at: Site) -> dict[str, set[str]]:
    """Workers that have spoken, by machine."""
    found: dict[str, set[str]] = {}
    for path in at.desk.directory.glob("runs/runs/*/nodes/[!.]*.json"):
        told = json.loads(path.read_text())
        if not told["slot"]:
            found.setdefault(keys.machine_of(told["node_id"]), set()).add(told["node_id"])
    return found


def devices_of(pids: set[int]) -> list[str]:
    """Of living worker processes."""
    environments = [Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") for pid in pids]
    pairs = [dict(e.split(b"=", 1) for e in env if b"=" in e) for env in environments]
    return sorted(pair[b"CUDA_VISIBLE_DEVICES"].decode() for pair in pairs)


def pids_of_workers(at: Site) -> set[int]:
    found: set[int] = set()
    for path in at.desk.directory.glob("runs/runs/*/nodes/[!.]*.json"):
        told = json.loads(path.read_text())
        if not told["slot"] and told["state"] != "ended":
            found.add(told["pid"])
    return found


def test_all_gpus_of_a_node_work_and_go_together(
    tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    with ec2_site(
        tmp_path,
        tokens_per_s=SLOW,
        market=prices(),
        types={EIGHT: 8},
        tensor_parallel_size=4,
        workers=1,
        on_demand_usd_per_hour={EIGHT: 36},
    ) as at:
        run = at.start("run", "job.yaml", "--no-prefect")
        wait_until(lambda: len(pids_of_workers(at)) == 2)
        (machine,) = workers_of(at)
        assert devices_of(pids_of_workers(at)) == ["0,1,2,3", "4,5,6,7"]
        at.until_working(1)
        at.cloud.notify(machine)
        done = at.end(run)

        assert done.returncode == 0, done.stderr
        check_whole(at, undisturbed)  # nothing lives, and the bill is the account's
        assert all(len(workers) == 2 for workers in workers_of(at).values())
        assert len(at.cloud.double.instances) in (1, 2)
        assert at.kinds().count("interrupted") <= 1
