"""What an account needs before the first run: roles, policies, an instance profile, a template.

Every step says what it would do and whether it is done already, so that a person can look first.
"""

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from shunt.aws.api import AwsApi
from shunt.aws.errors import ConfigurationError

ROLE = "shunt-worker"
TEMPLATE = "shunt-worker"
_TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": "ec2.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
    ],
}
_ABSENT = ("NoSuchEntity", "InvalidLaunchTemplateName.NotFoundException")


@dataclass(frozen=True, slots=True)
class AccountSettings:
    """What fills the files of `deployments/aws`."""

    directory: Path
    bucket: str
    image: str
    security_group: str
    prefix: str = ""
    """Ends with a slash where it is not empty."""

    def filled(self, name: str) -> dict[str, Any]:
        text = Template((self.directory / name).read_text())
        return json.loads(
            text.safe_substitute(
                bucket=self.bucket,
                prefix=self.prefix,
                image=self.image,
                security_group=self.security_group,
            )
        )


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to make, or to remove."""

    what: str
    done: bool
    do: Callable[[], object]


def setup_steps(ec2: AwsApi, iam: AwsApi, settings: AccountSettings) -> list[Step]:
    """In order; each `do` is repeatable once its step is seen not done."""
    policy = settings.filled("worker-policy.json")
    user_data = (settings.directory / "user-data.sh").read_bytes()
    template = settings.filled("launch-template.json")
    template["UserData"] = base64.b64encode(user_data).decode()
    role = {"RoleName": ROLE}
    profile = {"InstanceProfileName": ROLE}
    return [
        Step(
            f"role {ROLE}, for EC2 to assume",
            _exists(iam, "get_role", role),
            lambda: iam.call(
                "create_role", {**role, "AssumeRolePolicyDocument": json.dumps(_TRUST)}
            ),
        ),
        Step(
            f"policy of {ROLE}: runs and weights under s3://{settings.bucket}/{settings.prefix}",
            _exists(iam, "get_role_policy", {**role, "PolicyName": ROLE}),
            lambda: iam.call(
                "put_role_policy",
                {**role, "PolicyName": ROLE, "PolicyDocument": json.dumps(policy)},
            ),
        ),
        Step(
            f"instance profile {ROLE}",
            _exists(iam, "get_instance_profile", profile),
            lambda: (
                iam.call("create_instance_profile", profile),
                iam.call("add_role_to_instance_profile", {**profile, **role}),
            ),
        ),
        Step(
            f"launch template {TEMPLATE}",
            _exists(ec2, "describe_launch_templates", {"LaunchTemplateNames": [TEMPLATE]}),
            lambda: ec2.call(
                "create_launch_template",
                {
                    "LaunchTemplateName": TEMPLATE,
                    "ClientToken": TEMPLATE,
                    "LaunchTemplateData": template,
                },
            ),
        ),
    ]


def teardown_steps(ec2: AwsApi, iam: AwsApi) -> list[Step]:
    """The reverse. `done` says that the thing is gone."""
    role = {"RoleName": ROLE}
    profile = {"InstanceProfileName": ROLE}
    template = {"LaunchTemplateNames": [TEMPLATE]}
    return [
        Step(
            f"launch template {TEMPLATE}",
            not _exists(ec2, "describe_launch_templates", template),
            lambda: ec2.call("delete_launch_template", {"LaunchTemplateName": TEMPLATE}),
        ),
        Step(
            f"instance profile {ROLE}",
            not _exists(iam, "get_instance_profile", profile),
            lambda: (
                iam.call("remove_role_from_instance_profile", {**profile, **role}),
                iam.call("delete_instance_profile", profile),
            ),
        ),
        Step(
            f"policy of {ROLE}",
            not _exists(iam, "get_role_policy", {**role, "PolicyName": ROLE}),
            lambda: iam.call("delete_role_policy", {**role, "PolicyName": ROLE}),
        ),
        Step(
            f"role {ROLE}",
            not _exists(iam, "get_role", role),
            lambda: iam.call("delete_role", role),
        ),
    ]


def perform(steps: Sequence[Step]) -> int:
    """Do what is not done; returns how many were."""
    open_steps = [step for step in steps if not step.done]
    for step in open_steps:
        step.do()
    return len(open_steps)


def _exists(api: AwsApi, operation: str, params: dict[str, Any]) -> bool:
    try:
        api.call(operation, params)
    except ConfigurationError as error:
        if error.code in _ABSENT:
            return False
        raise
    return True
