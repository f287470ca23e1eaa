"""Two drivers of one run on EC2, as processes: one has its nodes and its role at a time."""

import json
import os
import signal
from collections.abc import Generator
from pathlib import Path

import boto3
import pytest

from shunt.testing.ec2.cloud import moto_server
from tests.command_process import CommandProcess
from tests.flows.conftest import wait_until
from tests.flows.ec2_site import Site, check_whole, ec2_site

pytestmark = pytest.mark.timeout(400)

SLUGGISH = 0.5
"""Tokens per second of each request: no run ends here by itself."""
QUICK = ("--set", "model.fake_tokens_per_s=null")
TERM_S = 60.0
BUCKET = "runs-of-us"


class Account:
    """What is not EC2: roles, and the way there."""

    def __init__(self, url: str) -> None:
        self.url = url
        keys = {"aws_access_key_id": "double", "aws_secret_access_key": "double"}
        self._endpoint = {"region_name": "us-east-1", "endpoint_url": url, **keys}

    def prepare(self, at: Site) -> None:
        boto3.client("s3", **self._endpoint).create_bucket(Bucket=BUCKET)
        setup = at.start("aws", "setup", "--bucket", BUCKET, "--image", "ami-1", "--yes")
        assert at.end(setup).returncode == 0

    def roles_of_runs(self) -> list[str]:
        roles = boto3.client("iam", **self._endpoint).list_roles()["Roles"]
        return [role["RoleName"] for role in roles if role["Path"].startswith("/shunt/run/")]


@pytest.fixture
def account() -> Generator[Account]:
    with moto_server() as url:
        yield Account(url)


def drives(at: Site, process: CommandProcess) -> bool:
    said = [json.loads(p.read_text()) for p in at.desk.directory.glob("runs/runs/*/driver.json")]
    return bool(said) and said[0]["place"]["pid"] == process.pid and not said[0]["released"]


def living(at: Site) -> list[str]:
    return sorted(instance.instance_id for instance in at.cloud.living())


def stop_and_finish(
    at: Site, account: Account, process: CommandProcess, undisturbed: dict[str, str]
) -> None:
    """Whoever has the run ends all of it when it is cancelled; then it can be done."""
    assert at.desk.shunt("cancel", "small").returncode == 0
    assert at.end(process).returncode == 75
    assert living(at) == []
    assert account.roles_of_runs() == []
    done = at.run(*QUICK)
    assert done.returncode == 0, done.stderr
    check_whole(at, undisturbed)


def test_a_second_driver_is_refused_and_takes_over_when_the_first_is_killed(
    tmp_path: Path, undisturbed: dict[str, str], account: Account
) -> None:
    site = ec2_site(tmp_path, tokens_per_s=SLUGGISH, rest_of_aws=account.url, role_per_run=True)
    with site as at:
        account.prepare(at)
        first = at.start("run", "job.yaml", "--no-prefect")
        nodes, roles = at.until_working(), account.roles_of_runs()
        assert len(roles) == 1

        for command in (("run", "job.yaml", "--no-prefect"), ("resume", "small")):
            refused = at.end(at.start(*command))
            assert refused.returncode == 1
            (sentence,) = refused.stderr.splitlines()
            assert f"is driven by another process (process {first.pid} on" in sentence
            assert "shunt cancel" in sentence
            assert living(at) == nodes
            assert account.roles_of_runs() == roles
            assert first.poll() is None

        first.kill()
        first.communicate()
        third = at.start("run", "job.yaml", "--no-prefect")
        wait_until(lambda: drives(at, third))
        assert living(at) == nodes, "it goes on with what the first one bought"
        stop_and_finish(at, account, third, undisturbed)


@pytest.mark.soak  # a term of a minute, in real time
def test_a_driver_that_hung_for_a_term_finds_another_one_and_ends_nothing(
    tmp_path: Path, undisturbed: dict[str, str], account: Account
) -> None:
    site = ec2_site(tmp_path, tokens_per_s=SLUGGISH, rest_of_aws=account.url, role_per_run=True)
    with site as at:
        account.prepare(at)
        first = at.start("run", "job.yaml", "--no-prefect")
        nodes = at.until_working()
        os.kill(first.pid, signal.SIGSTOP)
        second = at.start("run", "job.yaml", "--no-prefect")
        wait_until(lambda: drives(at, second), timeout_s=4 * TERM_S)
        os.kill(first.pid, signal.SIGCONT)
        left = at.end(first)

        assert left.returncode == 1
        assert "it took over while this one was not heard of" in left.stderr
        assert living(at) == nodes
        assert second.poll() is None
        stop_and_finish(at, account, second, undisturbed)
