"""`shunt run` on EC2, which here is the double: worker processes for instances, in real time."""

import json
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from shunt.aws.pool import Pool
from shunt.testing.ec2.cloud import Cloud, cloud
from shunt.testing.ec2.faults import unauthorised
from shunt.testing.ec2.market import Market
from tests.flows.conftest import REPOSITORY, Desk, lay_out

pytestmark = pytest.mark.timeout(240)

TYPE = "g6.xlarge"
ZONES = ("us-east-1a", "us-east-1b", "us-east-1c")
START = datetime(2026, 1, 1, tzinfo=UTC)
CENT = Decimal("0.01")


@dataclass(frozen=True, slots=True)
class Site:
    """A desk whose job buys nodes, and the cloud that sells them."""

    desk: Desk
    cloud: Cloud

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        return self.desk.start(*arguments, **self.cloud.environment)

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        process = self.start("run", "job.yaml", "--no-prefect", *arguments)
        stdout, stderr = process.communicate(timeout=120)
        return subprocess.CompletedProcess(arguments, process.returncode, stdout, stderr)

    def kinds(self) -> list[str]:
        return [event["kind"] for event in self.desk.status()["events"]]

    def check_nothing_is_left(self) -> None:
        """No instance, no process, and the bill that we told is the account's."""
        assert self.cloud.living() == []
        assert self.cloud.machines.processes() == {}
        told = Decimal(self.desk.status()["spend"]["usd"])
        assert told == self.cloud.double.bill_usd().quantize(CENT)


def prices() -> Market:
    """A cent is three to ten seconds of one node, so a second too much would show."""
    market = Market()
    for number, zone in enumerate(ZONES):
        market.set_price(Pool(TYPE, zone, "spot"), START, str(3.6 + number))
        market.set_price(Pool(TYPE, zone, "on-demand"), START, "36")
    return market


@contextmanager
def site(
    directory: Path,
    *,
    tokens_per_s: float | None = None,
    market: Market | None = None,
    notice_s: float = 3.0,
    skew_s: float = 0.0,
    **fleet: Any,
) -> Generator[Site]:
    desk = lay_out(directory, tokens_per_s=tokens_per_s)
    job = desk.job
    job["fleet"] = {
        "kind": "ec2",
        "workers": 2,
        "ec2": {
            "region": "us-east-1",
            "subnets": {zone: f"subnet-{zone}" for zone in ZONES},
            "instance_types": [TYPE],
            "observe_interval_s": 0.2,
            **fleet,
        },
    }
    (directory / "job.yaml").write_text(yaml.safe_dump(job))
    with cloud(
        worker_python=REPOSITORY / ".venv/worker/bin/python",
        store=json.dumps({"uri": str(directory / "runs")}),
        log_directory=directory / "nodes",
        market=market or prices(),
        notice_s=notice_s,
        skew_s=skew_s,
        stop_timeout_s=20.0,
    ) as account:
        try:
            yield Site(desk, account)
        finally:
            desk.end()


@pytest.fixture(scope="module")
def undisturbed(finished: Desk) -> dict[str, str]:
    return finished.texts()


def test_a_job_runs_on_nodes_that_are_all_gone_at_the_end(
    tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    with site(tmp_path) as at:
        done = at.run()

        assert done.returncode == 0, done.stderr
        assert at.desk.texts() == undisturbed
        assert len(at.cloud.double.instances) == 2
        at.check_nothing_is_left()
        assert "USD" in done.stdout
        assert at.kinds().count("fleet_ended") == 1
        assert at.desk.shunt("verify", "small").returncode == 0


@pytest.mark.parametrize("operation", ["CreateFleet", "DescribeInstances"])
def test_a_user_without_permissions_is_told_which_and_buys_nothing(
    tmp_path: Path, operation: str
) -> None:
    with site(tmp_path) as at:
        at.cloud.double.faults.append(unauthorised(operation))
        refused = at.run()

        assert refused.returncode == 1
        assert f"needs ec2:{operation}" in refused.stderr
        assert "Traceback" not in refused.stderr
        assert at.cloud.double.instances == {}
