"""A desk whose job buys nodes, and the double that sells them: worker processes, real time."""

import json
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

from shunt import keys
from shunt.aws.nodes.pool import Pool
from shunt.testing.ec2.cloud import Cloud, cloud
from shunt.testing.ec2.market import Market
from tests.command_process import CommandProcess
from tests.flows.conftest import REPOSITORY, SHORT, Desk, lay_out, wait_until

TYPE = "g6.xlarge"
ZONES = ("us-east-1a", "us-east-1b", "us-east-1c")
START = datetime(2026, 1, 1, tzinfo=UTC)
CENT = Decimal("0.01")
SLOW = 10.0
"""Tokens per second of each request: the job takes some ten seconds."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where a job runs on nodes of the double."""

    desk: Desk
    cloud: Cloud

    def start(self, *arguments: str) -> CommandProcess:
        return self.desk.fork(*arguments, **self.cloud.environment)

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return self.end(self.start("run", "job.yaml", "--no-prefect", *arguments))

    def end(
        self, process: "subprocess.Popen[str] | CommandProcess", timeout_s: float = 240.0
    ) -> "subprocess.CompletedProcess[str]":
        stdout, stderr = process.communicate(timeout=timeout_s)
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    def kinds(self) -> list[str]:
        return [event["kind"] for event in self.desk.status()["events"]]

    def until_working(self, num_nodes: int = 2, *, zone: str = "") -> list[str]:
        """Wait until so many nodes (of the zone) have saved something each; their ids."""
        wait_until(lambda: len(self._working(zone)) >= num_nodes)
        return self._working(zone)

    def check_nothing_is_left(self) -> None:
        """No instance, no process, and the bill that we told is the account's."""
        assert self.cloud.living() == []
        assert self.cloud.machines.processes() == {}
        told = Decimal(self.desk.status()["spend"]["usd"])
        assert told == self.cloud.double.bill_usd().quantize(CENT)

    def _working(self, zone: str) -> list[str]:
        living = {i.instance_id for i in self.cloud.living() if zone in ("", i.pool.zone)}
        said = [
            json.loads(path.read_text())
            for path in self.desk.directory.glob("runs/runs/*/nodes/[!.]*.json")
        ]
        saved = {keys.machine_of(node["node_id"]) for node in said if node["segments"]}
        return sorted(saved & living)


def check_whole(at: Site, undisturbed: dict[str, str]) -> None:
    """Every row is there once, as if nothing had happened, and nothing costs money any more."""
    assert at.desk.texts() == undisturbed
    assert at.desk.shunt("verify", "small").returncode == 0
    at.check_nothing_is_left()


def prices() -> Market:
    """A cent is three to ten seconds of one node, so a second too much would show."""
    market = Market()
    for number, zone in enumerate(ZONES):
        market.set_price(Pool(TYPE, zone, "spot"), START, str(3.6 + number))
        market.set_price(Pool(TYPE, zone, "on-demand"), START, "36")
    return market


@contextmanager
def ec2_site(
    directory: Path,
    *,
    tokens_per_s: float | None = None,
    market: Market | None = None,
    notice_s: float = 3.0,
    skew_s: float = 0.0,
    limits: dict[str, Any] | None = None,
    plan: dict[str, Any] | None = None,
    model: str = "Qwen2.5-7B-Instruct",
    store: dict[str, Any] | None = None,
    nodes_store: dict[str, Any] | None = None,
    rest_of_aws: str = "",
    job: dict[str, Any] | None = None,
    types: dict[str, int] | None = None,
    tensor_parallel_size: int = 1,
    workers: int = 2,
    **settings: Any,
) -> Generator[Site]:
    """A job of sixty rows on two nodes, or those of `plan`. `settings` are keys of `fleet.ec2`,
    `job` other keys of the job, `types` the instance types with their GPUs.

    `nodes_store`: by which way the nodes reach the store, where it is not the directory's.
    """
    desk = lay_out(directory, tokens_per_s=tokens_per_s)
    ec2: dict[str, Any] = {
        "region": "us-east-1",
        "subnets": {zone: f"subnet-{zone}" for zone in ZONES},
        "instance_types": list(types or [TYPE]),
        "observe_interval_s": 0.5,
        "role_per_run": False,
        "on_demand_usd_per_hour": {TYPE: 36},
        **settings,
    }
    fleet: dict[str, Any] = {"kind": "ec2", "workers": workers, "ec2": ec2}
    whole = desk.job | {"fleet": fleet, "limits": limits or {}, "sampling": SHORT} | (job or {})
    whole["model"]["engine"] = {
        "max_num_seqs": 10,  # neither node takes all of the work
        "tensor_parallel_size": tensor_parallel_size,
    }
    if store is not None:
        whole["store"] = store
    if plan is not None:
        ec2["instance_types"] = []
        whole["model"]["path"] = model  # its shape is shipped
        whole["plan"] = plan
    (directory / "job.yaml").write_text(yaml.safe_dump(whole))
    with cloud(
        worker_python=REPOSITORY / ".venv/worker/bin/python",
        store=json.dumps(nodes_store or {"uri": str(directory / "runs")}),
        log_directory=directory / "nodes",
        market=market or prices(),
        notice_s=notice_s,
        skew_s=skew_s,
        stop_timeout_s=20.0,
        rest_of_aws=rest_of_aws,
        gpus_by_type=types,
    ) as account:
        try:
            yield Site(desk, account)
        finally:
            desk.end()
