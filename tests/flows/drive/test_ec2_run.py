"""`shunt run` on EC2, which here is the double: worker processes for instances, in real time."""

import json
import os
import re
import signal
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import boto3
import pyarrow.parquet as pq
import pytest

from shunt.aws.nodes.pool import Pool
from shunt.checkpoint.done import ShardDone, mark_done
from shunt.run.manifest import read_manifest
from shunt.store.opening import open_store
from shunt.testing.ec2.cloud import moto_server
from shunt.testing.ec2.faults import ControllerKilled, Phase, unauthorised
from shunt.testing.ec2.market import Market
from tests.command_process import CommandProcess
from tests.flows.conftest import wait_until
from tests.flows.ec2_site import CENT, SLOW, START, TYPE, ZONES, check_whole, ec2_site

pytestmark = pytest.mark.timeout(300)

QUICK = ("--set", "model.fake_tokens_per_s=null")
"""Takes effect where no node of an earlier invocation lives."""


def test_a_job_runs_on_nodes_that_are_all_gone_at_the_end(
    tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    with ec2_site(tmp_path) as at:
        done = at.run()

        assert done.returncode == 0, done.stderr
        check_whole(at, undisturbed)
        assert len(at.cloud.double.instances) == 2
        bill = at.cloud.double.bill_usd().quantize(CENT)
        assert f"spent: {bill} USD on 2 nodes" in done.stdout
        again = at.run("--json")
        assert json.loads(again.stdout)["spent_usd"] == float(bill)
        assert at.kinds().count("fleet_ended") == 1
        told = at.desk.shunt("receipts", "small", "--output", "receipts.parquet")
        assert f"60 rows, {bill} USD in all" in told.stderr
        receipts = pq.read_table(tmp_path / "receipts.parquet").to_pylist()
        assert sum(receipt["cost_usd"] for receipt in receipts) == bill
        assert {kind for r in receipts for kind in r["node_types"]} == {f"{TYPE} (spot)"}


@pytest.mark.prefect
def test_the_flow_runs_on_the_same_nodes(tmp_path: Path, undisturbed: dict[str, str]) -> None:
    with ec2_site(tmp_path) as at:
        done = at.end(at.desk.start("run", "job.yaml", **at.cloud.environment))

        assert done.returncode == 0, done.stderr
        check_whole(at, undisturbed)


def test_a_run_that_ended_while_nobody_looked_is_paid_for_and_cleared(
    tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    with ec2_site(tmp_path) as at:
        run = at.start("run", "job.yaml", "--no-prefect")
        wait_until(lambda: len(at.cloud.double.instances) == 2)
        run.kill()
        run.communicate()
        wait_until(lambda: not at.cloud.living())
        done = at.run()

        assert done.returncode == 0, done.stderr
        check_whole(at, undisturbed)
        assert len(at.cloud.double.instances) == 2
        assert at.kinds().count("fleet_ended") == 1


@pytest.mark.parametrize(
    "operation", ["CreateFleet", pytest.param("DescribeInstances", marks=pytest.mark.soak)]
)
def test_a_user_without_permissions_is_told_which_and_buys_nothing(
    tmp_path: Path, operation: str
) -> None:
    with ec2_site(tmp_path) as at:
        at.cloud.double.faults.append(unauthorised(operation))
        refused = at.run()

        assert refused.returncode == 1
        assert f"needs ec2:{operation}" in refused.stderr
        assert "Traceback" not in refused.stderr
        assert at.cloud.double.instances == {}


@pytest.fixture
def moto_url() -> Generator[str]:
    with moto_server() as url:
        yield url


def test_nodes_have_a_role_of_their_run_which_goes_with_them(
    tmp_path: Path, undisturbed: dict[str, str], moto_url: str
) -> None:
    with ec2_site(tmp_path, rest_of_aws=moto_url, role_per_run=True) as at:
        keys = {"aws_access_key_id": "double", "aws_secret_access_key": "double"}
        endpoint = {"region_name": "us-east-1", "endpoint_url": moto_url, **keys}
        boto3.client("s3", **endpoint).create_bucket(Bucket="runs-of-us")
        setup = at.start("aws", "setup", "--bucket", "runs-of-us", "--image", "ami-1", "--yes")
        assert at.end(setup).returncode == 0
        done = at.run()

        assert done.returncode == 0, done.stderr
        check_whole(at, undisturbed)
        (run_id,) = {i.tags["shunt:run"] for i in at.cloud.double.instances.values()}
        intents = [path.read_text() for path in tmp_path.glob("runs/runs/*/intents/*/0*0.json")]
        assert all(f'"LaunchTemplateName":"shunt-run-{run_id}"' in text for text in intents)
        iam = boto3.client("iam", **endpoint)
        roles = {role["RoleName"] for role in iam.list_roles()["Roles"]}
        assert {role for role in roles if role.startswith("shunt")} == {"shunt-worker"}


def test_zones_are_emptied_one_after_the_other(tmp_path: Path, undisturbed: dict[str, str]) -> None:
    with ec2_site(tmp_path, tokens_per_s=SLOW) as at:
        run = at.start("run", "job.yaml", "--no-prefect")
        for zone in ZONES[:2]:
            at.until_working(zone=zone)
            at.cloud.empty(Pool(TYPE, zone, "spot"))
        done = at.end(run)

        assert done.returncode == 0, done.stderr
        check_whole(at, undisturbed)
        assert at.kinds().count("interrupted") in (3, 4)  # the last one may have been done
        again = [row["num_resumes"] for row in at.desk.rows()]
        assert sum(again) > 0


def test_nodes_by_plan_move_with_a_new_plan_when_their_zone_is_emptied(
    tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    plan = {
        "workload": {"num_prompts": 100_000, "input_tokens": 500, "output_tokens": 200},
        "offerings": [
            {"instance_type": TYPE, "zone": zone, "usd_per_hour": 1 + number, "max_nodes": 2}
            for number, zone in enumerate(ZONES)
        ],
        "objective": {"kind": "cost", "deadline_hours": 6},
    }
    with ec2_site(tmp_path, tokens_per_s=SLOW, plan=plan) as at:
        run = at.start("run", "job.yaml", "--no-prefect")
        at.until_working(zone=ZONES[0])
        at.cloud.empty(Pool(TYPE, ZONES[0], "spot"))
        done = at.end(run)

        assert done.returncode == 0, done.stderr
        check_whole(at, undisturbed)
        zones = [i.pool.zone for i in at.cloud.double.instances.values()]
        assert zones[:2] == [ZONES[0]] * 2
        assert set(zones[2:]) == {ZONES[1]}  # one that is quick may do the rest alone
        assert len(list(tmp_path.glob("runs/runs/*/plans/*.json"))) > 1
        assert "nodes by plan" in done.stdout


def test_all_nodes_are_taken_at_once_without_a_word(
    tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    with ec2_site(tmp_path, tokens_per_s=SLOW) as at:
        run = at.start("run", "job.yaml", "--no-prefect")
        at.cloud.take(*at.until_working())
        assert at.end(run).returncode == 0
        check_whole(at, undisturbed)
        assert len(at.cloud.double.instances) in (3, 4)
        assert at.kinds().count("interrupted") == 2


def test_a_notice_that_comes_twice_and_one_that_is_withdrawn(
    tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    url = "http://queue/notices"
    with ec2_site(tmp_path, tokens_per_s=SLOW, notice_s=8.0, notice_queue_url=url) as at:
        run = at.start("run", "job.yaml", "--no-prefect")
        first, second = at.until_working()
        at.cloud.notify(first, queued=2)
        wait_until(lambda: "interrupted" in at.kinds())
        at.cloud.notify(second, queued=1)
        at.cloud.withdraw(second)
        done = at.end(run)

        assert done.returncode == 0, done.stderr
        check_whole(at, undisturbed)
        assert len(at.cloud.double.instances) in (3, 4), (
            "each is replaced once, while there is work"
        )
        assert at.kinds().count("interrupted") == 2


@pytest.mark.parametrize("skew_s", [3600.0, pytest.param(-3600.0, marks=pytest.mark.soak)])
def test_a_clock_that_is_wrong_by_an_hour(
    tmp_path: Path, undisturbed: dict[str, str], skew_s: float
) -> None:
    """Of the controller and its nodes, against EC2's. The budget is not used up by it."""
    with ec2_site(tmp_path, tokens_per_s=SLOW, skew_s=skew_s, limits={"max_cost_usd": 3}) as at:
        run = at.start("run", "job.yaml", "--no-prefect")
        at.cloud.notify(at.until_working()[0])
        assert at.end(run).returncode == 0
        check_whole(at, undisturbed)


DEATHS: list[tuple[str, Phase]] = [
    ("CreateFleet", "before"),
    ("CreateFleet", "after"),
    ("DescribeInstances", "after"),
    ("TerminateInstances", "after"),
]


def test_the_controller_is_killed_at_one_call_after_the_other(
    tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    """Really killed, by SIGKILL, and started again. Every call in turn: test_held_fleet.py, and
    test_ec2_sweep.py as soak."""
    with ec2_site(tmp_path, tokens_per_s=3) as at:
        for operation, phase in DEATHS:
            calls_before = len(at.cloud.double.calls)
            controller = at.start("run", "job.yaml", "--no-prefect")

            def fault(
                _call: int,
                called: str,
                at_phase: Phase,
                fatal: tuple[str, Phase] = (operation, phase),
                controller: CommandProcess = controller,
            ) -> None:
                if (called, at_phase) == fatal:
                    controller.kill()
                    raise ControllerKilled

            at.cloud.double.faults[:] = [fault]
            if operation == "TerminateInstances":
                at.until_working()
                enough = calls_before + 4
                wait_until(lambda enough=enough: len(at.cloud.double.calls) > enough)
                controller.send_signal(signal.SIGINT)
            controller.communicate(timeout=60)
            assert controller.returncode == -signal.SIGKILL, (operation, phase)
        at.cloud.double.faults.clear()
        assert len(at.cloud.double.instances) == 2, "no double launch"
        done = at.run(*QUICK)

        assert done.returncode == 0, done.stderr
        check_whole(at, undisturbed)
        assert len(at.cloud.double.instances) == 4, "two of them were ended by the last to die"


@pytest.mark.soak
def test_the_cost_limit_ends_the_nodes_and_the_run_goes_on_later(
    tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    market = Market()
    for zone in ZONES:
        market.set_price(Pool(TYPE, zone, "spot"), START, "3.6")
    limits = {"max_cost_usd": 0.73}  # six minutes of two nodes are 72 cents
    with ec2_site(tmp_path, tokens_per_s=1.0, market=market, limits=limits) as at:
        stopped = at.run()

        assert stopped.returncode == 4, stopped.stderr
        assert "cost limit of 0.73 USD" in stopped.stdout
        assert at.desk.status()["output_tokens"] > 0
        at.check_nothing_is_left()
        assert at.cloud.double.bill_usd() < Decimal("0.73")

        (command,) = re.findall(r"Go on with: shunt (resume .*)", stopped.stdout)
        again = at.end(at.start(*command.split(), "--set", "limits.max_cost_usd=20"), timeout_s=200)
        assert again.returncode == 0, again.stderr
        check_whole(at, undisturbed)
        assert sum(row["num_resumes"] for row in at.desk.rows()) > 0


def test_a_cost_limit_that_is_too_small_for_a_node_buys_none(tmp_path: Path) -> None:
    with ec2_site(tmp_path, limits={"max_cost_usd": 0.20}) as at:
        stopped = at.run()

        assert stopped.returncode == 4, stopped.stderr
        assert "the cost limit of 0.20 USD has no room for a node" in stopped.stdout
        assert at.cloud.double.instances == {}


def test_the_deadline_is_met_with_on_demand_nodes_or_stops_the_run(
    tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    soon = (datetime.now(UTC) + timedelta(seconds=20)).isoformat()
    settings = {"on_demand": "at-deadline", "startup_s": 1.0}
    slow = SLOW / 4  # two nodes do not make it by then, however quick the machine is
    with ec2_site(tmp_path, tokens_per_s=slow, limits={"deadline": soon}, **settings) as at:
        run = at.start("run", "job.yaml", "--no-prefect")
        at.until_working()
        wait_until(lambda: "market" in at.kinds())
        at.cloud.take(at.cloud.living()[0].instance_id)
        stopped = at.end(run)

        assert stopped.returncode == 4, stopped.stderr
        assert "deadline" in stopped.stdout
        markets = [i.pool.market for i in at.cloud.double.instances.values()]
        assert markets == ["spot", "spot", "on-demand"]
        at.check_nothing_is_left()

        assert at.run("--set", "limits.deadline=null", *QUICK).returncode == 0
        check_whole(at, undisturbed)


def test_a_shard_that_is_wrongly_marked_done_is_found_by_a_second_fleet(
    tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    with ec2_site(tmp_path, limits={"deadline": "2020-01-01T00:00:00Z"}) as at:
        assert at.run().returncode == 4
        (run_id,) = [path.parent.name for path in tmp_path.glob("runs/runs/*/manifest.json")]
        store = open_store(str(tmp_path / "runs"))
        shard_id = read_manifest(store, run_id).shards[2].shard_id
        lie = ShardDone(
            shard_id=shard_id,
            epoch=1,
            num_rows=10,
            num_error_rows=0,
            num_output_tokens=1,
            num_segments=1,
        )
        mark_done(store, run_id, lie)
        done = at.run("--set", "limits.deadline=null")

        assert done.returncode == 0, done.stderr
        check_whole(at, undisturbed)
        assert len(at.cloud.double.instances) == 4


def test_what_a_later_invocation_says_reaches_its_nodes_or_is_refused(
    tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    """At a token in twenty seconds the first invocation's job would take its nodes an hour."""
    with ec2_site(tmp_path, tokens_per_s=0.05) as at:
        run = at.start("run", "job.yaml", "--no-prefect")
        wait_until(lambda: len(at.cloud.living()) == 2)
        run.kill()
        run.communicate()
        refused = at.run(*QUICK)

        assert refused.returncode == 2, refused.stderr
        assert "2 nodes of an earlier invocation live and go by other settings" in refused.stderr
        assert "(model.fake_tokens_per_s)" in refused.stderr
        at.cloud.take(*(instance.instance_id for instance in at.cloud.living()))
        done = at.run(*QUICK)
        assert done.returncode == 0, done.stderr
        check_whole(at, undisturbed)


def test_ctrl_c_ends_the_nodes(tmp_path: Path, undisturbed: dict[str, str]) -> None:
    with ec2_site(tmp_path, tokens_per_s=SLOW) as at:
        run = at.start("run", "job.yaml", "--no-prefect")
        at.until_working()
        os.killpg(run.pid, signal.SIGINT)
        stopped = at.end(run)

        assert stopped.returncode == 75, stopped.stderr
        at.check_nothing_is_left()
        assert at.run(*QUICK).returncode == 0
        check_whole(at, undisturbed)
