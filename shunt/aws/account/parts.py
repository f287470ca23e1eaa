"""Pieces of an account that exist, differ or are absent: asked, made to be as wanted, removed.

Everything here may run twice: what AWS says is there already, or gone already, is no error.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

from shunt.aws.api import AwsApi
from shunt.aws.errors import AwsError

State = Literal["absent", "differs", "there"]

_ABSENT = (
    "NoSuchEntity",
    "InvalidLaunchTemplateName.NotFoundException",
    "InvalidLaunchTemplateId.NotFound",
    "InvalidGroup.NotFound",
    "QueueDoesNotExist",
    "AWS.SimpleQueueService.NonExistentQueue",
    "ResourceNotFoundException",
    "404",
)
_PRESENT = ("EntityAlreadyExists", "InvalidLaunchTemplateName.AlreadyExistsException")
_MOST_VERSIONS = 5
"""IAM keeps so many versions of a managed policy."""
DEFAULT = "$Default"


def found(api: AwsApi, operation: str, params: Mapping[str, Any]) -> dict[str, Any] | None:
    """The reply, or None where there is no such thing. Raises any other `AwsError`."""
    try:
        return api.call(operation, params)
    except AwsError as error:
        if error.code in _ABSENT:
            return None
        raise


def made(api: AwsApi, operation: str, params: Mapping[str, Any]) -> bool:
    """Make it; False where it was there already."""
    try:
        api.call(operation, params)
    except AwsError as error:
        if error.code in _PRESENT:
            return False
        raise
    return True


def holds(have: object, wanted: object) -> bool:
    """Whether all that is wanted is there; AWS adds fields of its own."""
    if isinstance(wanted, Mapping):
        fields = cast("Mapping[str, object]", wanted)
        return isinstance(have, Mapping) and all(
            holds(cast("Mapping[str, object]", have).get(name), value)
            for name, value in fields.items()
        )
    if isinstance(wanted, list):
        items = cast("list[object]", wanted)
        return (
            isinstance(have, list)
            and len(cast("list[object]", have)) == len(items)
            and all(map(holds, cast("list[object]", have), items))
        )
    return have == wanted


def inline_policy_state(iam: AwsApi, role: str, document: Mapping[str, Any]) -> State:
    """Of the policy inside a role that has the role's own name."""
    reply = found(iam, "get_role_policy", {"RoleName": role, "PolicyName": role})
    if reply is None:
        return "absent"
    return "there" if reply["PolicyDocument"] == document else "differs"


def managed_policy_state(iam: AwsApi, arn: str, document: Mapping[str, Any]) -> State:
    reply = found(iam, "get_policy", {"PolicyArn": arn})
    if reply is None:
        return "absent"
    version = {"PolicyArn": arn, "VersionId": reply["Policy"]["DefaultVersionId"]}
    have = iam.call("get_policy_version", version)["PolicyVersion"]["Document"]
    return "there" if have == document else "differs"


def put_managed_policy(
    iam: AwsApi, arn: str, document: Mapping[str, Any], *, description: str
) -> None:
    """Make the policy, or a new default version of it, dropping the oldest if there are five."""
    path, name = policy_path(arn)
    text = json.dumps(document)
    policy = {"PolicyName": name, "Path": path, "PolicyDocument": text, "Description": description}
    if made(iam, "create_policy", policy):
        return
    spare = _spare_versions(iam, arn)
    if len(spare) + 1 >= _MOST_VERSIONS:
        iam.call("delete_policy_version", {"PolicyArn": arn, "VersionId": spare[-1]})
    version = {"PolicyArn": arn, "PolicyDocument": text, "SetAsDefault": True}
    iam.call("create_policy_version", version)


def delete_managed_policy(iam: AwsApi, arn: str) -> None:
    """Raises `ConfigurationError` (DeleteConflict) while it is attached to somebody."""
    for version in _spare_versions(iam, arn):
        iam.call("delete_policy_version", {"PolicyArn": arn, "VersionId": version})
    found(iam, "delete_policy", {"PolicyArn": arn})


def policy_path(arn: str) -> tuple[str, str]:
    """`arn:aws:iam::1:policy/shunt/run` is `run` under `/shunt/`."""
    path, _, name = arn.split(":policy", 1)[1].rpartition("/")
    return f"{path}/", name


def make_profile(iam: AwsApi, name: str, role: str, *, path: str = "/") -> None:
    """An instance profile with this one role in it."""
    made(iam, "create_instance_profile", {"InstanceProfileName": name, "Path": path})
    profile = iam.call("get_instance_profile", {"InstanceProfileName": name})["InstanceProfile"]
    if not profile["Roles"]:
        both = {"InstanceProfileName": name, "RoleName": role}
        iam.call("add_role_to_instance_profile", both)


def delete_profile(iam: AwsApi, name: str) -> None:
    reply = found(iam, "get_instance_profile", {"InstanceProfileName": name})
    for role in reply["InstanceProfile"]["Roles"] if reply else ():
        both = {"InstanceProfileName": name, "RoleName": role["RoleName"]}
        found(iam, "remove_role_from_instance_profile", both)
    found(iam, "delete_instance_profile", {"InstanceProfileName": name})


def default_template(ec2: AwsApi, name: str) -> dict[str, Any] | None:
    """What the template's default version says; None where there is no template."""
    params = {"LaunchTemplateName": name, "Versions": [DEFAULT]}
    reply = found(ec2, "describe_launch_template_versions", params)
    versions: Sequence[dict[str, Any]] = reply["LaunchTemplateVersions"] if reply else ()
    return versions[0]["LaunchTemplateData"] if versions else None


def template_state(ec2: AwsApi, name: str, data: Mapping[str, Any]) -> State:
    have = default_template(ec2, name)
    if have is None:
        return "absent"
    return "there" if holds(have, data) else "differs"


def put_template(ec2: AwsApi, name: str, data: Mapping[str, Any]) -> None:
    """Make the template, or a new default version of it."""
    template = {"LaunchTemplateName": name, "LaunchTemplateData": data}
    if made(ec2, "create_launch_template", template):
        return
    reply = ec2.call("create_launch_template_version", template)
    number = reply["LaunchTemplateVersion"]["VersionNumber"]
    chosen = {"LaunchTemplateName": name, "DefaultVersion": str(number)}
    ec2.call("modify_launch_template", chosen)


def _spare_versions(iam: AwsApi, arn: str) -> list[str]:
    """The versions that are not the default, the newest first."""
    reply = found(iam, "list_policy_versions", {"PolicyArn": arn})
    versions: Sequence[dict[str, Any]] = reply["Versions"] if reply else ()
    return [v["VersionId"] for v in versions if not v["IsDefaultVersion"]]
