"""What an account needs before the first run, and how it is removed again.

Every step says what it would do and what is there already, so that a person can look first. Doing
a step that was done changes nothing; one that differs from what is wanted is made to be so.
"""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from shunt.aws.account.bundle import Bundle
from shunt.aws.account.notice_parts import NOTICES, NoticeDesk
from shunt.aws.account.parts import (
    State,
    delete_managed_policy,
    delete_profile,
    found,
    inline_policy_state,
    made,
    make_profile,
    managed_policy_state,
    put_managed_policy,
    put_template,
    template_state,
)
from shunt.aws.api import AwsApi
from shunt.aws.errors import ConfigurationError

WORKER = "shunt-worker"
"""Name of role, instance profile, launch template and security group."""
RUN_PATH = "/shunt/run/"
"""Where the roles of single runs are."""
TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": "ec2.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
    ],
}
SERVICES = {"spot.amazonaws.com": "spot nodes", "ec2fleet.amazonaws.com": "EC2 Fleet"}
"""Services whose own role an account needs; the controller may not make them."""
PIPELINE_PORTS = ((29600, 29699), (61000, 64999))
"""What the stages of a pipeline over several nodes talk over (docs/pipelines.md)."""


@dataclass(frozen=True, slots=True)
class Services:
    """The services that setup works with, in one region of one account."""

    ec2: AwsApi
    iam: AwsApi
    s3: AwsApi
    account: str
    region: str

    def policy_arn(self, name: str) -> str:
        return f"arn:aws:iam::{self.account}:policy/shunt/{name}"


@dataclass(frozen=True, slots=True)
class AccountSettings:
    """What fills the files of `deployments/aws`."""

    directory: Path
    bucket: str
    image: str
    """An AMI id, or `resolve:ssm:` and the parameter that holds one."""
    prefix: str = ""
    """Ends with a slash where it is not empty."""
    vpc: str = ""
    """Empty: the region's default VPC."""
    security_group: str = ""
    """Empty: one without inbound rules is made."""
    pipelines: bool = False
    """Let nodes talk to each other over the ports of pipelines."""
    root_device: str = ""
    """Device name of the image's root volume; empty: as the image says, where it is an AMI id."""
    volume_gb: int = 100
    bundle: Bundle | None = None
    """Code and lock for images that have neither; None: the image has both."""

    def filled(self, name: str, services: Services, security_group: str = "") -> dict[str, Any]:
        """A file of `deployments/aws` with its names put in. IAM's own variables stay."""
        text = Template((self.directory / name).read_text())
        names = {
            "bucket": self.bucket,
            "prefix": self.prefix,
            "image": self.image,
            "security_group": security_group,
            "region": services.region,
            "account": services.account,
        }
        return json.loads(text.safe_substitute(names))

    def user_data(self) -> str:
        """The script of the first boot, with the bundle that it installs; never a secret."""
        script = (self.directory / "user-data.sh").read_text()
        if self.bundle is None:
            return script
        shebang, rest = script.split("\n", 1)
        uri = f"s3://{self.bucket}/{self.bundle.key(self.prefix)}"
        named = f"SHUNT_BUNDLE={uri}\nSHUNT_BUNDLE_SHA256={self.bundle.sha256}"
        return f"{shebang}\n{named}\n{rest}"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to make, or to remove."""

    what: str
    state: State
    do: Callable[[], object]
    removes: bool = False

    @property
    def done(self) -> bool:
        return self.state == ("absent" if self.removes else "there")


def setup_steps(services: Services, settings: AccountSettings) -> list[Step]:
    """In order. Nothing is changed before a step's `do`."""
    group = settings.security_group or find_group(services.ec2, settings.vpc)
    return [
        *(_service_role(services.iam, name, what) for name, what in SERVICES.items()),
        *_group_steps(services.ec2, settings, group),
        *_role_steps(services, settings),
        *_policy_steps(services, settings),
        *_bundle_steps(services.s3, settings),
        _template_step(services, settings, group),
    ]


def teardown_steps(services: Services) -> list[Step]:
    """The reverse. What others may use stays: the services' own roles, bundles in the bucket."""
    ec2, iam = services.ec2, services.iam
    template = found(ec2, "describe_launch_templates", {"LaunchTemplateNames": [WORKER]})
    group = find_group(ec2, "")
    return [
        _removal(
            f"launch template {WORKER}",
            template is not None,
            lambda: ec2.call("delete_launch_template", {"LaunchTemplateName": WORKER}),
        ),
        _removal(
            f"instance profile {WORKER}",
            found(iam, "get_instance_profile", {"InstanceProfileName": WORKER}) is not None,
            lambda: delete_profile(iam, WORKER),
        ),
        _removal(
            f"policy of role {WORKER}",
            _has_policy(iam),
            lambda: found(iam, "delete_role_policy", {"RoleName": WORKER, "PolicyName": WORKER}),
        ),
        _removal(
            f"role {WORKER}",
            found(iam, "get_role", {"RoleName": WORKER}) is not None,
            lambda: found(iam, "delete_role", {"RoleName": WORKER}),
        ),
        *(_policy_removal(iam, services.policy_arn(name)) for name in ("run", "controller")),
        _removal(
            f"security group {WORKER} {group}".rstrip(),
            bool(group),
            lambda: ec2.call("delete_security_group", {"GroupId": group}),
        ),
    ]


def notice_steps(desk: NoticeDesk) -> list[Step]:
    """The queue of spot notices, for all runs of the region."""
    return [
        Step(
            f"queue {NOTICES}: keeps notices for five minutes", desk.queue_state(), desk.put_queue
        ),
        Step(
            f"rule {NOTICES}: spot interruptions and rebalance recommendations into it",
            desk.rule_state(),
            desk.put_rule,
        ),
    ]


def notice_removals(desk: NoticeDesk) -> list[Step]:
    """The reverse."""
    rule, queue = desk.rule_state(), desk.queue_url()
    return [
        _removal(f"rule {NOTICES}", rule != "absent", desk.remove_rule),
        _removal(f"queue {NOTICES}", bool(queue), desk.remove_queue),
    ]


def perform(steps: Sequence[Step], *, told: Callable[[Step], object] = lambda _: None) -> int:
    """Do what is not done, telling each once it is; returns how many were."""
    open_steps = [step for step in steps if not step.done]
    for step in open_steps:
        step.do()
        told(step)
    return len(open_steps)


def find_group(ec2: AwsApi, vpc: str) -> str:
    """Our security group by name; empty where there is none."""
    filters = [{"Name": "group-name", "Values": [WORKER]}]
    if vpc:
        filters.append({"Name": "vpc-id", "Values": [vpc]})
    groups = ec2.call("describe_security_groups", {"Filters": filters})["SecurityGroups"]
    return groups[0]["GroupId"] if groups else ""


def template_data(services: Services, settings: AccountSettings, group: str) -> dict[str, Any]:
    """What every node is launched with."""
    data = settings.filled("launch-template.json", services, group)
    user_data = base64.b64encode(settings.user_data().encode()).decode()
    (root,) = data["BlockDeviceMappings"]
    root["DeviceName"] = settings.root_device or _root_device(services.ec2, settings.image, root)
    root["Ebs"]["VolumeSize"] = settings.volume_gb
    return {**data, "UserData": user_data}


def _root_device(ec2: AwsApi, image: str, written: Mapping[str, Any]) -> str:
    """As the image names it: a volume under another name stands empty beside the image's own. A
    parameter (`resolve:ssm:`) is not looked into; Amazon Linux has what is written."""
    if not image.startswith("ami-"):
        return written["DeviceName"]
    try:
        images: list[dict[str, str]] = ec2.call("describe_images", {"ImageIds": [image]})["Images"]
    except ConfigurationError:  # no such image: launching it will say so
        images = []
    names = [told["RootDeviceName"] for told in images if "RootDeviceName" in told]
    return names[0] if names else written["DeviceName"]


def _service_role(iam: AwsApi, service: str, what: str) -> Step:
    path = {"PathPrefix": f"/aws-service-role/{service}/"}
    there = bool(iam.call("list_roles", path)["Roles"])
    return Step(
        f"AWS's own role for {what}",
        "there" if there else "absent",
        lambda: iam.call("create_service_linked_role", {"AWSServiceName": service}),
    )


def _group_steps(ec2: AwsApi, settings: AccountSettings, group: str) -> list[Step]:
    if settings.security_group:
        return []
    steps = [
        Step(
            f"security group {WORKER} without inbound rules",
            "there" if group else "absent",
            lambda: _make_group(ec2, settings.vpc),
        )
    ]
    if settings.pipelines:
        steps.append(
            Step(
                "inbound rules of it: ports of pipelines, from its own members only",
                "there" if group and _inbound(ec2, group) else "absent",
                lambda: _admit_pipelines(ec2, find_group(ec2, settings.vpc)),
            )
        )
    return steps


def _make_group(ec2: AwsApi, vpc: str) -> None:
    """Without inbound rules, which is what a new group has; outbound is open, for S3 and pip."""
    if not vpc:
        default = [{"Name": "is-default", "Values": ["true"]}]
        vpc = ec2.call("describe_vpcs", {"Filters": default})["Vpcs"][0]["VpcId"]
    told = "Nodes of shunt: nothing comes in from outside"
    ec2.call("create_security_group", {"GroupName": WORKER, "Description": told, "VpcId": vpc})


def _inbound(ec2: AwsApi, group: str) -> list[dict[str, Any]]:
    reply = ec2.call("describe_security_groups", {"GroupIds": [group]})
    return reply["SecurityGroups"][0]["IpPermissions"]


def _admit_pipelines(ec2: AwsApi, group: str) -> None:
    rules = [
        {
            "IpProtocol": "tcp",
            "FromPort": first,
            "ToPort": last,
            "UserIdGroupPairs": [{"GroupId": group}],
        }
        for first, last in PIPELINE_PORTS
    ]
    permissions = {"GroupId": group, "IpPermissions": rules}
    ec2.call("authorize_security_group_ingress", permissions)


def _role_steps(services: Services, settings: AccountSettings) -> list[Step]:
    iam = services.iam
    policy = settings.filled("worker-policy.json", services)
    role = {"RoleName": WORKER, "AssumeRolePolicyDocument": json.dumps(TRUST)}
    text = {"RoleName": WORKER, "PolicyName": WORKER, "PolicyDocument": json.dumps(policy)}
    there = found(iam, "get_role", {"RoleName": WORKER}) is not None
    profile = found(iam, "get_instance_profile", {"InstanceProfileName": WORKER})
    return [
        Step(
            f"role {WORKER}, for EC2 to assume",
            "there" if there else "absent",
            lambda: made(iam, "create_role", role),
        ),
        Step(
            f"policy of {WORKER}: all runs under s3://{settings.bucket}/{settings.prefix}runs/",
            inline_policy_state(iam, WORKER, policy),
            lambda: iam.call("put_role_policy", text),
        ),
        Step(
            f"instance profile {WORKER}",
            "there" if profile and profile["InstanceProfile"]["Roles"] else "absent",
            lambda: make_profile(iam, WORKER, WORKER),
        ),
    ]


def _policy_steps(services: Services, settings: AccountSettings) -> list[Step]:
    iam = services.iam
    told = {
        "run": "what the role of one run may do, at most: its own prefix",
        "controller": "for the person or role that runs shunt",
    }

    def step(name: str, what: str) -> Step:
        arn, document = services.policy_arn(name), settings.filled(f"{name}-policy.json", services)
        return Step(
            f"policy shunt/{name}: {what}",
            managed_policy_state(iam, arn, document),
            lambda: put_managed_policy(iam, arn, document, description=what),
        )

    return [step(name, what) for name, what in told.items()]


def _bundle_steps(s3: AwsApi, settings: AccountSettings) -> list[Step]:
    bundle = settings.bundle
    if bundle is None:
        return []
    place = {"Bucket": settings.bucket, "Key": bundle.key(settings.prefix)}
    return [
        Step(
            f"code and locked requirements of a worker: s3://{place['Bucket']}/{place['Key']}",
            "absent" if found(s3, "head_object", place) is None else "there",
            lambda: s3.call("put_object", {**place, "Body": bundle.data}),
        )
    ]


def _template_step(services: Services, settings: AccountSettings, group: str) -> Step:
    ec2 = services.ec2

    def put() -> None:
        known = group or find_group(ec2, settings.vpc)  # the step before may have made it
        put_template(ec2, WORKER, template_data(services, settings, known))

    return Step(
        f"launch template {WORKER}: image {settings.image}, IMDSv2 only, encrypted volumes",
        template_state(ec2, WORKER, template_data(services, settings, group)),
        put,
    )


def _removal(what: str, there: bool, do: Callable[[], object]) -> Step:
    return Step(what, "there" if there else "absent", do, removes=True)


def _policy_removal(iam: AwsApi, arn: str) -> Step:
    there = found(iam, "get_policy", {"PolicyArn": arn}) is not None
    return _removal(f"policy {arn}", there, lambda: delete_managed_policy(iam, arn))


def _has_policy(iam: AwsApi) -> bool:
    policy: Mapping[str, str] = {"RoleName": WORKER, "PolicyName": WORKER}
    return found(iam, "get_role_policy", policy) is not None
