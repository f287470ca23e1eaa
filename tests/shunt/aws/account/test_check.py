"""The doctor: one line a check, and a check that may not look does not end the list."""

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto import mock_aws

from shunt.aws.account.check import Finding, check_account
from shunt.aws.account.setup import WORKER, Services, find_group, perform, setup_steps
from shunt.aws.api import AwsApi, client_of
from shunt.plan.offering_sheet import GpuType, OfferingSheet
from shunt.testing.ec2.double import Ec2Double
from shunt.testing.ec2.faults import unauthorised
from shunt.testing.ec2.market import Market
from tests.shunt.aws.account.test_setup import SETTINGS
from tests.shunt.aws.conftest import START

SHEET = OfferingSheet(
    region="us-east-1",
    taken_at=START,
    types=(
        GpuType(
            instance_type="g6.xlarge",
            gpu="L4",
            gpu_count=1,
            gpu_memory_mib=22888,
            vcpus=4,
            nvme_gb=250,
        ),
    ),
    quotas={"All G and VT Spot Instance Requests": 64},
)


@pytest.fixture
def double() -> Iterator[Ec2Double]:
    made = Ec2Double(Market(), lambda: START)
    yield made
    assert made.instances == {}, "a doctor launches nothing"


@pytest.fixture
def services(clients: object, double: Ec2Double) -> Iterator[Services]:
    """An account that is set up, with a closed bucket."""
    del clients
    with mock_aws():
        s3 = boto3.client("s3", region_name="us-east-1")
        s3.create_bucket(Bucket="my-bucket")
        names = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy")
        closed = dict.fromkeys((*names, "RestrictPublicBuckets"), True)
        s3.put_public_access_block(Bucket="my-bucket", PublicAccessBlockConfiguration=closed)
        made = Services(
            ec2=AwsApi(client_of("ec2", "us-east-1")),
            iam=AwsApi(client_of("iam", "us-east-1")),
            s3=AwsApi(client_of("s3", "us-east-1")),
            account="123456789012",
            region="us-east-1",
        )
        double.attach(made.ec2.client)
        double.attach(made.iam.client)
        perform(setup_steps(made, SETTINGS))
        yield made


def looked(services: Services, sheet: OfferingSheet = SHEET) -> dict[str, Finding]:
    return {f.what: f for f in check_account(services, sheet, bucket="my-bucket")}


def wrong(services: Services, sheet: OfferingSheet = SHEET) -> dict[str, str]:
    return {w: f.remedy for w, f in looked(services, sheet).items() if f.verdict != "ok"}


def test_an_account_that_is_set_up_is_well(services: Services) -> None:
    found = looked(services)
    assert wrong(services) == {}
    assert "quota All G and VT Spot Instance Requests: 64 vCPU, 16 nodes of g6.xlarge" in found
    assert found["launching a node"].verdict == "ok"


def test_an_empty_account_lacks_everything_and_says_what_to_run(clients: object) -> None:
    del clients
    with mock_aws():
        apis = {s: AwsApi(client_of(s, "us-east-1")) for s in ("ec2", "iam", "s3")}
        empty = Services(**apis, account="123456789012", region="us-east-1")
        found = wrong(empty)
    assert found["bucket my-bucket"] == "there is no such bucket"
    for part in ("role shunt-worker", "instance profile shunt-worker", "policy shunt/run"):
        assert found[part] == "run shunt aws setup"
    assert found["launch template shunt-worker"] == "run shunt aws setup"
    assert found["AWS's own role for spot nodes"] == "run shunt aws setup"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"MetadataOptions": {"HttpTokens": "optional"}}, "IMDSv1 is allowed"),
        ({"InstanceInitiatedShutdownBehavior": "stop"}, "goes on to cost"),
        ({"BlockDeviceMappings": [{"DeviceName": "a", "Ebs": {"VolumeSize": 9}}]}, "encrypted"),
        ({"KeyName": "mine"}, "it has an SSH key"),
    ],
)
def test_a_template_that_somebody_softened(
    services: Services, change: dict[str, Any], told: str
) -> None:
    template = {"LaunchTemplateName": WORKER, "LaunchTemplateData": change}
    services.ec2.call("create_launch_template_version", {**template, "SourceVersion": "1"})
    chosen = {"LaunchTemplateName": WORKER, "DefaultVersion": "2"}
    services.ec2.call("modify_launch_template", chosen)
    assert told in wrong(services)["launch template shunt-worker"]


@pytest.mark.parametrize(
    "world", [{"IpRanges": [{"CidrIp": "0.0.0.0/0"}]}, {"Ipv6Ranges": [{"CidrIpv6": "::/0"}]}]
)
def test_a_group_that_lets_the_internet_in(services: Services, world: dict[str, Any]) -> None:
    group = find_group(services.ec2, "")
    rule = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, **world}
    permissions = {"GroupId": group, "IpPermissions": [rule]}
    services.ec2.call("authorize_security_group_ingress", permissions)
    assert wrong(services) == {
        "security group shunt-worker": f"{group} lets the internet in; remove that rule"
    }


def test_rights_that_are_missing_are_named_one_by_one(
    services: Services, double: Ec2Double
) -> None:
    double.faults.append(unauthorised("RunInstances", "GetRole", "ListRoles"))
    assert wrong(services) == {
        "AWS's own role for spot nodes": "cannot look: needs ec2:ListRoles",
        "AWS's own role for EC2 Fleet": "cannot look: needs ec2:ListRoles",
        "role shunt-worker": "cannot look: needs ec2:GetRole",
        "launching a node": "not allowed: needs ec2:RunInstances",
    }


def test_a_quota_of_nothing_and_a_column_that_may_not_be_seen(services: Services) -> None:
    line = "spot prices: not shown; it needs ec2:DescribeSpotPriceHistory"
    quotas = {"All P5 Spot Instance Requests": 0.0}
    sheet = SHEET.model_copy(update={"quotas": quotas, "missing": (line,)})
    found = wrong(services, sheet)
    assert found[line] == "see deployments/aws/controller-policy.json"
    assert "Service Quotas" in found["quota All P5 Spot Instance Requests: 0 vCPU"]


def test_a_bucket_that_may_be_public(services: Services) -> None:
    services.s3.call("delete_public_access_block", {"Bucket": "my-bucket"})
    assert wrong(services) == {
        "no public access to my-bucket": "block public access is not set on it"
    }
