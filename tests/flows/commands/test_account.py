"""`shunt aws`: nothing without --yes, nothing twice, and no stack trace without rights."""

from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto import mock_aws
from typer.testing import CliRunner

from flows.cli import app
from flows.commands import account as account_commands
from shunt.aws.account.run_identity import make_identity
from shunt.aws.api import AwsApi
from shunt.testing.ec2.double import Ec2Double
from shunt.testing.ec2.faults import unauthorised
from shunt.testing.ec2.market import Market
from tests.shunt.aws.conftest import START

SETUP = ("aws", "setup", "--bucket", "runs-of-us", "--image", "ami-1")


@pytest.fixture(autouse=True)
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    with mock_aws():
        boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="runs-of-us")
        yield


def said(*argv: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, list(argv), env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result.output


def test_setup_changes_nothing_without_yes() -> None:
    first = said(*SETUP)
    assert "will make: role shunt-worker, for EC2 to assume" in first
    assert "nothing was changed" in first
    assert "will make: role shunt-worker" in said(*SETUP)
    assert "9 steps done" in said(*SETUP, "--yes")
    assert "0 steps done" in said(*SETUP, "--yes")
    assert "will change: launch template" in said(*SETUP[:-1], "ami-2")
    assert "will make: code and locked requirements" in said(*SETUP, "--install")


def test_a_queue_of_notices_is_made_where_it_is_asked_for() -> None:
    assert "queue" not in said(*SETUP)
    assert "will make: queue shunt-notices" in said(*SETUP, "--notices")
    output = said(*SETUP, "--notices", "--yes")
    assert "11 steps done" in output
    assert "fleet.ec2.notice_queue_url: https://sqs.us-east-1" in output
    assert "9 steps done" in said("aws", "teardown", "--yes")
    assert "0 steps done" in said("aws", "teardown", "--yes")


def test_teardown_says_first_and_takes_the_roles_of_runs_along() -> None:
    said(*SETUP, "--yes")
    services = account_commands._services("us-east-1")
    make_identity(services, "night-0001")
    assert "will remove the role of run night-0001" in said("aws", "teardown")
    output = said("aws", "teardown", "--yes")
    assert "removing the role of run night-0001" in output
    assert "7 steps done" in output
    assert "0 steps done" in said("aws", "teardown", "--yes")
    assert "nothing to do: role shunt-worker" in said("aws", "teardown")


def test_teardown_refuses_while_nodes_exist() -> None:
    ec2 = boto3.client("ec2", region_name="us-east-1")
    tagged = [{"ResourceType": "instance", "Tags": [{"Key": "shunt:run", "Value": "r"}]}]
    ec2.run_instances(ImageId="ami-12345678", MinCount=1, MaxCount=1, TagSpecifications=tagged)
    assert "1 nodes still exist; end them first" in said("aws", "teardown", "--yes", code=2)


def test_the_doctor_tells_what_is_missing_and_what_one_may_not_see(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A user without rights gets a line for each, and exit code 1."""
    real = account_commands._api

    def refusing(service: str, region: str) -> AwsApi:
        api = real(service, region)
        if service != "sts":
            asked = ("DescribeInstanceTypes", "DescribeSpotPriceHistory", "GetProducts", "GetRole")
            more = ("ListServiceQuotas", "GetSpotPlacementScores", "DescribeAvailabilityZones")
            rest = ("ListRoles", "GetPolicy", "GetInstanceProfile", "HeadBucket", "RunInstances")
            double = Ec2Double(Market(), lambda: START)
            double.faults.append(unauthorised(*asked, *more, *rest))
            double.attach(api.client)
        return api

    monkeypatch.setattr(account_commands, "_api", refusing)
    output = said("aws", "doctor", "--bucket", "runs-of-us", "--notices", code=1)
    for line in (
        "unknown  GPU types: not shown; it needs ec2:DescribeInstanceTypes",
        "unknown  quotas: not shown; it needs ec2:ListServiceQuotas",
        "unknown  role shunt-worker: cannot look: needs ec2:GetRole",
        "missing  launching a node: not allowed: needs ec2:RunInstances",
        "missing  launch template shunt-worker: run shunt aws setup",
        "missing  rule shunt-notices: there is none; run shunt aws setup --notices",
        "lines need a look",
    ):
        assert line in output


def test_without_credentials_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    monkeypatch.setenv("AWS_PROFILE", "nobody-has-this")
    for argv in (("aws", "doctor"), ("aws", "teardown"), SETUP, ("nodes",)):
        assert "valid AWS credentials" in said(*argv, code=1)


def test_the_stack_template_is_written(tmp_path: Path) -> None:
    said("aws", "template", "--out", str(tmp_path / "stack.json"))
    assert "AWS::EC2::LaunchTemplate" in (tmp_path / "stack.json").read_text()
