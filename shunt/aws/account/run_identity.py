"""A role for one run, so that its nodes reach the prefix of that run and of no other.

EC2 gives every node of an instance profile the same role, and a role's session carries the role's
tags, not the node's. So the limit is one role per run: it carries the run's id as a tag, and the
one policy `shunt/run` says what a role may reach by that tag. The same policy is its permissions
boundary: a controller that may make such roles can still not make one that may do more.
"""

import hashlib
import json
from typing import Any

from shunt.aws import tags
from shunt.aws.account.parts import (
    default_template,
    delete_profile,
    found,
    made,
    make_profile,
)
from shunt.aws.account.setup import RUN_PATH, TRUST, WORKER, Services
from shunt.aws.errors import ConfigurationError

RUN_TAG = "shunt-run"
"""The run's id on its role: what `${aws:PrincipalTag/shunt-run}` in the policy is replaced by."""
_MOST_LETTERS = 64


def identity_name(run_id: str) -> str:
    """Of role, instance profile and launch template: at most 64 letters, as IAM wants."""
    name = f"shunt-run-{run_id}"
    if len(name) <= _MOST_LETTERS:
        return name
    digest = hashlib.sha256(run_id.encode()).hexdigest()[:12]
    return f"{name[: _MOST_LETTERS - 13]}-{digest}"


def make_identity(
    services: Services,
    run_id: str,
    *,
    template: str = WORKER,
) -> str:
    """Make what is missing; returns the name of the launch template that gives nodes the role.

    EC2 may not know the profile for seconds up to minutes: launches are refused until then.
    Raises `ConfigurationError` where there is no template to begin from, and `AwsError`.
    """
    ec2, iam = services.ec2, services.iam
    data = default_template(ec2, template)
    if data is None:
        raise ConfigurationError(
            "describe_launch_template_versions", "NoTemplate", f"{template}: run shunt aws setup"
        )
    name, policy = identity_name(run_id), services.policy_arn("run")
    role = {
        "RoleName": name,
        "Path": RUN_PATH,
        "AssumeRolePolicyDocument": json.dumps(TRUST),
        "PermissionsBoundary": policy,
        "Tags": [{"Key": RUN_TAG, "Value": run_id}],
    }
    made(iam, "create_role", role)
    iam.call("attach_role_policy", {"RoleName": name, "PolicyArn": policy})
    make_profile(iam, name, name, path=RUN_PATH)
    of_run = tags.specification("launch-template", {tags.RUN: run_id})
    own: dict[str, Any] = {
        "LaunchTemplateName": name,
        "LaunchTemplateData": {**_as_request(data), "IamInstanceProfile": {"Name": name}},
        "TagSpecifications": [of_run],
    }
    made(ec2, "create_launch_template", own)
    return name


def _as_request(described: dict[str, Any]) -> dict[str, Any]:
    """What EC2 describes of a template as it may be asked for: without what only EC2 says."""
    metadata = {k: v for k, v in described.get("MetadataOptions", {}).items() if k != "State"}
    return {**described, "MetadataOptions": metadata}


def remove_identity(services: Services, run_id: str) -> None:
    """Remove all of it. What is gone already is no error; nodes must be gone before."""
    name, policy = identity_name(run_id), services.policy_arn("run")
    if default_template(services.ec2, name) is not None:
        found(services.ec2, "delete_launch_template", {"LaunchTemplateName": name})
    delete_profile(services.iam, name)
    found(services.iam, "detach_role_policy", {"RoleName": name, "PolicyArn": policy})
    found(services.iam, "delete_role", {"RoleName": name})


def identities(services: Services) -> list[str]:
    """Run ids that have a role in the account."""
    roles = services.iam.call("list_roles", {"PathPrefix": RUN_PATH, "MaxItems": 1000})["Roles"]
    found_ids: list[str] = []
    for role in roles:
        tagged = services.iam.call("list_role_tags", {"RoleName": role["RoleName"]})["Tags"]
        found_ids += [tag["Value"] for tag in tagged if tag["Key"] == RUN_TAG]
    return found_ids
