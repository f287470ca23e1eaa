"""Setting an account up and taking it down again: said first, done once, undone whole."""

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from shunt.aws.account.bundle import LOCK, make_bundle
from shunt.aws.account.run_identity import identities, identity_name, make_identity, remove_identity
from shunt.aws.account.setup import (
    AccountSettings,
    Services,
    find_group,
    perform,
    setup_steps,
    teardown_steps,
    template_data,
)
from shunt.aws.api import AwsApi, client_of
from shunt.aws.errors import PermissionRefused
from shunt.testing.ec2.double import Ec2Double
from shunt.testing.ec2.faults import unauthorised
from shunt.testing.ec2.market import Market
from tests.shunt.aws.conftest import START

ROOT = Path(__file__).parents[4]
SETTINGS = AccountSettings(
    ROOT / "deployments" / "aws", "my-bucket", "ami-1", prefix="team/", vpc=""
)


@pytest.fixture
def services(clients: object) -> Iterator[Services]:
    """An empty account of moto."""
    del clients  # the session's credentials
    with mock_aws():
        boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="my-bucket")
        yield Services(
            ec2=AwsApi(client_of("ec2", "us-east-1")),
            iam=AwsApi(client_of("iam", "us-east-1")),
            s3=AwsApi(client_of("s3", "us-east-1")),
            account="123456789012",
            region="us-east-1",
        )


def said(services: Services, settings: AccountSettings) -> dict[str, str]:
    return {step.what.split(":")[0]: step.state for step in setup_steps(services, settings)}


def template(services: Services) -> dict[str, Any]:
    params = {"LaunchTemplateName": "shunt-worker", "Versions": ["$Default"]}
    reply = services.ec2.call("describe_launch_template_versions", params)
    return reply["LaunchTemplateVersions"][0]["LaunchTemplateData"]


def test_setup_is_said_done_once_and_undone(services: Services) -> None:
    before = said(services, SETTINGS)
    assert set(before.values()) == {"absent"}
    assert said(services, SETTINGS) == before  # saying changes nothing
    assert perform(setup_steps(services, SETTINGS)) == len(before) == 9
    assert set(said(services, SETTINGS).values()) == {"there"}
    assert perform(setup_steps(services, SETTINGS)) == 0
    assert perform(teardown_steps(services)) == 7
    assert perform(teardown_steps(services)) == 0
    assert {w for w, s in said(services, SETTINGS).items() if s == "there"} == {
        "AWS's own role for spot nodes",
        "AWS's own role for EC2 Fleet",
    }


def test_the_worker_reaches_its_prefix_and_the_template_names_what_was_made(
    services: Services,
) -> None:
    perform(setup_steps(services, SETTINGS))
    inline = {"RoleName": "shunt-worker", "PolicyName": "shunt-worker"}
    policy = services.iam.call("get_role_policy", inline)["PolicyDocument"]
    assert policy["Statement"][0]["Resource"] == "arn:aws:s3:::my-bucket/team/runs/*"
    data = template(services)
    assert data["SecurityGroupIds"] == [find_group(services.ec2, "")]
    assert data["ImageId"] == "ami-1"
    group = services.ec2.call("describe_security_groups", {"GroupIds": data["SecurityGroupIds"]})
    assert group["SecurityGroups"][0]["IpPermissions"] == []


def test_the_paid_volume_is_the_images_own_root(services: Services) -> None:
    """Under another name it would stand empty beside a small root: images differ in it."""
    images = services.ec2.call("describe_images", {"Owners": ["amazon"]})["Images"]
    named = {image["RootDeviceName"]: image["ImageId"] for image in images}
    assert len(named) > 1
    for root, image in named.items():
        settings = replace(SETTINGS, image=image)
        (mapping,) = template_data(services, settings, "sg-1")["BlockDeviceMappings"]
        assert (mapping["DeviceName"], mapping["Ebs"]["VolumeSize"]) == (root, settings.volume_gb)
    told = replace(SETTINGS, image="ami-1", root_device="/dev/own")
    (mapping,) = template_data(services, told, "sg-1")["BlockDeviceMappings"]
    assert mapping["DeviceName"] == "/dev/own"


def test_what_differs_is_changed(services: Services) -> None:
    perform(setup_steps(services, SETTINGS))
    other = replace(SETTINGS, image="ami-2", prefix="other/")
    differing = {what for what, state in said(services, other).items() if state == "differs"}
    assert differing == {
        "policy of shunt-worker",
        "policy shunt/run",
        "policy shunt/controller",
        "launch template shunt-worker",
    }
    assert perform(setup_steps(services, other)) == 4
    assert template(services)["ImageId"] == "ami-2"
    assert perform(setup_steps(services, other)) == 0


def test_a_managed_policy_is_changed_more_often_than_it_has_versions(services: Services) -> None:
    changes = [replace(SETTINGS, prefix=f"team-{number}/") for number in range(8)]
    for settings in changes:
        perform(setup_steps(services, settings))
    assert "differs" not in said(services, changes[-1]).values()


def test_ones_own_security_group_is_taken_and_none_is_made(services: Services) -> None:
    perform(setup_steps(services, replace(SETTINGS, security_group="sg-mine")))
    assert template(services)["SecurityGroupIds"] == ["sg-mine"]
    assert find_group(services.ec2, "") == ""


def test_pipelines_open_ports_to_members_of_the_group_only(services: Services) -> None:
    settings = replace(SETTINGS, pipelines=True)
    perform(setup_steps(services, settings))
    group = find_group(services.ec2, "")
    reply = services.ec2.call("describe_security_groups", {"GroupIds": [group]})
    for rule in reply["SecurityGroups"][0]["IpPermissions"]:
        assert [pair["GroupId"] for pair in rule["UserIdGroupPairs"]] == [group]
        assert rule["IpRanges"] == []
    assert perform(setup_steps(services, settings)) == 0


def test_a_locked_install_puts_the_bundle_where_user_data_fetches_it(services: Services) -> None:
    bundle = make_bundle(ROOT)
    settings = replace(SETTINGS, bundle=bundle)
    perform(setup_steps(services, settings))
    key = f"team/bundles/{bundle.sha256}.tar.gz"
    got = services.s3.call("get_object", {"Bucket": "my-bucket", "Key": key})["Body"].read()
    assert got == bundle.data
    script = base64.b64decode(template(services)["UserData"]).decode()
    lines = script.splitlines()
    assert lines[:3] == [
        "#!/bin/bash",
        f"SHUNT_BUNDLE=s3://my-bucket/{key}",
        f"SHUNT_BUNDLE_SHA256={bundle.sha256}",
    ]
    assert len(script.encode()) < 16 * 1024  # EC2's limit
    assert perform(setup_steps(services, settings)) == 0


def test_the_bundle_is_the_same_for_the_same_files(tmp_path: Path) -> None:
    for name in (LOCK, "shunt/a.py", "workers/b.py", "workers/__pycache__/b.pyc", "flows/c.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    first = make_bundle(tmp_path)
    (tmp_path / "shunt/a.py").touch()
    (tmp_path / "flows/c.py").write_text("a controller's file")
    (tmp_path / "workers/__pycache__/b.pyc").write_text("other")
    assert make_bundle(tmp_path) == first
    (tmp_path / "workers/b.py").write_text("other")
    assert make_bundle(tmp_path).sha256 != first.sha256


def test_a_missing_permission_stops_setup_and_is_named(services: Services) -> None:
    double = Ec2Double(Market(), lambda: START, faults=[unauthorised("CreateRole")])
    double.attach(services.iam.client)
    with pytest.raises(PermissionRefused, match="CreateRole"):
        perform(setup_steps(services, SETTINGS))
    double.faults.clear()
    perform(setup_steps(services, SETTINGS))  # and goes on where it stopped
    assert set(said(services, SETTINGS).values()) == {"there"}


def test_the_role_of_a_run_is_made_once_bounded_and_removed(services: Services) -> None:
    perform(setup_steps(services, SETTINGS))
    name = make_identity(services, "night-0001")
    assert name == make_identity(services, "night-0001")
    role = services.iam.call("get_role", {"RoleName": name})["Role"]
    assert role["Path"] == "/shunt/run/"
    boundary = role["PermissionsBoundary"]["PermissionsBoundaryArn"]
    attached = services.iam.call("list_attached_role_policies", {"RoleName": name})
    assert [p["PolicyArn"] for p in attached["AttachedPolicies"]] == [boundary]
    assert boundary == "arn:aws:iam::123456789012:policy/shunt/run"
    tags = services.iam.call("list_role_tags", {"RoleName": name})["Tags"]
    assert tags == [{"Key": "shunt-run", "Value": "night-0001"}]
    params = {"LaunchTemplateName": name, "Versions": ["$Default"]}
    reply = services.ec2.call("describe_launch_template_versions", params)
    own = reply["LaunchTemplateVersions"][0]["LaunchTemplateData"]
    shared = template(services)
    assert own["IamInstanceProfile"] == {"Name": name}
    assert {**shared, **own, "IamInstanceProfile": 0} == {**own, "IamInstanceProfile": 0}
    assert identities(services) == ["night-0001"]
    remove_identity(services, "night-0001")
    remove_identity(services, "night-0001")
    assert identities(services) == []
    assert perform(teardown_steps(services)) == 7


def test_what_only_ec2_says_of_a_template_is_not_asked_for_again(services: Services) -> None:
    """A described template has the state of its metadata options; a request must not."""
    perform(setup_steps(services, SETTINGS))
    data = {"MetadataOptions": {"HttpTokens": "required", "State": "applied"}}

    def described(model: Any, **_: object) -> Any:
        if model.name != "DescribeLaunchTemplateVersions":
            return None
        return _Http(), {"LaunchTemplateVersions": [{"LaunchTemplateData": data}]}

    services.ec2.client.meta.events.register_first("before-call", described)
    make_identity(services, "night-0002")  # botocore checks the request
    assert services.ec2.calls["create_launch_template"] == 2


class _Http:
    status_code = 200


def test_long_run_ids_have_names_that_iam_takes() -> None:
    long = "n" * 64 + "-0123456789"
    assert len(identity_name(long)) == 64
    assert identity_name(long) != identity_name(long + "x")
    assert identity_name("night-0001") == "shunt-run-night-0001"


def test_the_policy_of_runs_is_by_the_tag_of_the_role(services: Services) -> None:
    filled = SETTINGS.filled("run-policy.json", services)
    assert filled["Statement"][0]["Resource"] == (
        "arn:aws:s3:::my-bucket/team/runs/${aws:PrincipalTag/shunt-run}/*"
    )
    assert "${bucket}" not in json.dumps(filled)
