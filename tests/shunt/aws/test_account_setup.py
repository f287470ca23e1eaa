"""Setting an account up and taking it down again: said first, done once, undone whole."""

import json
from pathlib import Path

import boto3
import pytest
from moto import mock_aws

from shunt.aws.account_setup import AccountSettings, perform, setup_steps, teardown_steps
from shunt.aws.api import AwsApi
from tests.shunt.aws.conftest import Clients

FILES = Path(__file__).parents[3] / "deployments" / "aws"


@pytest.mark.usefixtures("clients")
def test_setup_is_said_done_once_and_undone(clients: Clients) -> None:
    del clients
    settings = AccountSettings(FILES, "my-bucket", "ami-1", "sg-1", "team/")
    with mock_aws():
        iam = AwsApi(boto3.client("iam", region_name="us-east-1"))
        ec2 = AwsApi(boto3.client("ec2", region_name="us-east-1"))
        steps = setup_steps(ec2, iam, settings)
        assert [step.done for step in steps] == [False] * 4
        assert perform(steps) == 4
        assert perform(setup_steps(ec2, iam, settings)) == 0
        policy = iam.call(
            "get_role_policy", {"RoleName": "shunt-worker", "PolicyName": "shunt-worker"}
        )
        assert "my-bucket/team/runs/*" in json.dumps(policy["PolicyDocument"])
        assert perform(teardown_steps(ec2, iam)) == 4
        assert perform(teardown_steps(ec2, iam)) == 0
        assert not any(step.done for step in setup_steps(ec2, iam, settings))
