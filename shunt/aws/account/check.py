"""The doctor: what of an account is missing or not as it should be, without changing anything.

Every check stands alone: what one may not look at is a line of its own, not the end of the list.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from shunt.aws import tags
from shunt.aws.account.notice_parts import NoticeDesk, notice_checks
from shunt.aws.account.parts import default_template, found
from shunt.aws.account.setup import SERVICES, WORKER, Services, find_group
from shunt.aws.api import AwsApi
from shunt.aws.errors import AwsError, CredentialsRefused, PermissionRefused
from shunt.plan.offering_sheet import OfferingSheet

Verdict = Literal["ok", "wrong", "unknown"]

_DRY_RUN = "DryRunOperation"
"""How EC2 says that the caller may do it."""
EXAMPLE_TYPES = ("g6.xlarge", "g6e.xlarge", "p5.48xlarge")
_SETUP = "run shunt aws setup"
_OPEN = ("0.0.0.0/0", "::/0")


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor."""

    verdict: Verdict
    what: str
    remedy: str = ""


def caller(sts: AwsApi) -> str:
    """The account. Raises `CredentialsRefused`."""
    return sts.call("get_caller_identity", {})["Account"]


def check_account(services: Services, sheet: OfferingSheet, *, bucket: str) -> Iterator[Finding]:
    """All checks. `sheet` is a look at the market (quotas, and what of it may not be seen)."""
    for line in sheet.missing:
        yield Finding("unknown", line, "see deployments/aws/controller-policy.json")
    for market in ("spot", "on-demand"):
        for name in EXAMPLE_TYPES:
            yield from _quota(sheet, name, market)
    for service, what in SERVICES.items():
        yield _looked(f"AWS's own role for {what}", _service_role(services.iam, service))
    for what, look in {
        f"role {WORKER}": _role(services.iam),
        f"instance profile {WORKER}": _profile(services.iam),
        "policy shunt/run": _policy(services, "run"),
        f"security group {WORKER}": _group(services.ec2),
        f"launch template {WORKER}": _template(services.ec2),
        "launching a node": _may_launch(services.ec2),
        "launching through EC2 Fleet": _may_launch_fleet(services.ec2),
    }.items():
        yield _looked(what, look)
    if bucket:
        yield _looked(f"bucket {bucket}", _bucket(services.s3, bucket))
        yield _looked(f"no public access to {bucket}", _closed_bucket(services.s3, bucket))


def check_notices(desk: NoticeDesk) -> Iterator[Finding]:
    """Of the queue of spot notices, which nobody needs to have."""
    for what, look in notice_checks(desk):
        yield _looked(what, look)


def _looked(what: str, look: Callable[[], str]) -> Finding:
    """`look` returns what is wrong; empty where nothing is."""
    try:
        wrong = look()
    except CredentialsRefused as error:
        return Finding("unknown", what, f"needs {error.permission}")
    except PermissionRefused as error:
        return Finding("unknown", what, f"cannot look: needs {error.permission}")
    except AwsError as error:
        return Finding("unknown", what, f"cannot look: {error}")
    return Finding("wrong", what, wrong) if wrong else Finding("ok", what)


def _quota(sheet: OfferingSheet, name: str, market: str) -> Iterator[Finding]:
    quota = sheet.quota_name(name, market)
    if quota is None:
        return
    vcpus = sheet.quotas[quota]
    sizes = {t.instance_type: t.vcpus for t in sheet.types}
    nodes = f", {vcpus // sizes[name]:g} nodes of {name}" if sizes.get(name) else ""
    what = f"quota {quota}: {vcpus:g} vCPU{nodes}"
    if vcpus:
        yield Finding("ok", what)
    else:
        yield Finding("wrong", what, "ask for more in Service Quotas; it takes hours to days")


def _service_role(iam: AwsApi, service: str) -> Callable[[], str]:
    def look() -> str:
        path = {"PathPrefix": f"/aws-service-role/{service}/"}
        return "" if iam.call("list_roles", path)["Roles"] else _SETUP

    return look


def _role(iam: AwsApi) -> Callable[[], str]:
    def look() -> str:
        if found(iam, "get_role", {"RoleName": WORKER}) is None:
            return _SETUP
        inline = {"RoleName": WORKER, "PolicyName": WORKER}
        return "" if found(iam, "get_role_policy", inline) else "it has no policy; " + _SETUP

    return look


def _profile(iam: AwsApi) -> Callable[[], str]:
    def look() -> str:
        reply = found(iam, "get_instance_profile", {"InstanceProfileName": WORKER})
        if reply is None:
            return _SETUP
        return "" if reply["InstanceProfile"]["Roles"] else "it has no role; " + _SETUP

    return look


def _policy(services: Services, name: str) -> Callable[[], str]:
    def look() -> str:
        arn = {"PolicyArn": services.policy_arn(name)}
        return "" if found(services.iam, "get_policy", arn) else _SETUP

    return look


def _group(ec2: AwsApi) -> Callable[[], str]:
    def look() -> str:
        data = default_template(ec2, WORKER) or {}
        group = next(iter(data.get("SecurityGroupIds", ())), "") or find_group(ec2, "")
        if not group:
            return _SETUP
        reply = found(ec2, "describe_security_groups", {"GroupIds": [group]})
        if reply is None:
            return f"{group} of the launch template is not there; " + _SETUP
        rules = reply["SecurityGroups"][0]["IpPermissions"]
        return f"{group} lets the internet in; remove that rule" if any(map(_open, rules)) else ""

    return look


def _open(rule: Mapping[str, Any]) -> bool:
    ranges = [r["CidrIp"] for r in rule.get("IpRanges", ())]
    ranges += [r["CidrIpv6"] for r in rule.get("Ipv6Ranges", ())]
    return any(cidr in _OPEN for cidr in ranges)


def _template(ec2: AwsApi) -> Callable[[], str]:
    def look() -> str:
        data = default_template(ec2, WORKER)
        if data is None:
            return _SETUP
        return "; ".join(_softened(data))

    return look


def _softened(data: Mapping[str, Any]) -> Iterator[str]:
    """What of the hardening somebody took out."""
    metadata = data.get("MetadataOptions", {})
    if metadata.get("HttpTokens") != "required":
        yield "IMDSv1 is allowed"
    if metadata.get("HttpPutResponseHopLimit") != 1:
        yield "containers reach the credentials (hop limit above 1)"
    if metadata.get("InstanceMetadataTags") != "enabled":
        yield "nodes cannot read their run from their tags"
    if data.get("InstanceInitiatedShutdownBehavior") != "terminate":
        yield "a node that powers off goes on to cost (shutdown behaviour is not terminate)"
    volumes = [m["Ebs"] for m in data.get("BlockDeviceMappings", ()) if "Ebs" in m]
    if not volumes or not all(volume.get("Encrypted") for volume in volumes):
        yield "volumes are not encrypted"
    if "KeyName" in data:
        yield "it has an SSH key"


def _may_launch(ec2: AwsApi) -> Callable[[], str]:
    def look() -> str:
        request = {
            "LaunchTemplate": {"LaunchTemplateName": WORKER},
            "InstanceType": EXAMPLE_TYPES[0],
            "MinCount": 1,
            "MaxCount": 1,
            "TagSpecifications": [_example_tags("instance"), _example_tags("volume")],
        }
        return _dry(ec2, "run_instances", request)

    return look


def _may_launch_fleet(ec2: AwsApi) -> Callable[[], str]:
    def look() -> str:
        template = {"LaunchTemplateName": WORKER, "Version": "$Default"}
        config = {
            "LaunchTemplateSpecification": template,
            "Overrides": [{"InstanceType": EXAMPLE_TYPES[0]}],
        }
        request = {
            "Type": "instant",
            "LaunchTemplateConfigs": [config],
            "TargetCapacitySpecification": {
                "TotalTargetCapacity": 1,
                "DefaultTargetCapacityType": "spot",
            },
            "TagSpecifications": [_example_tags("instance"), _example_tags("fleet")],
        }
        return _dry(ec2, "create_fleet", request)

    return look


def _example_tags(resource: str) -> dict[str, Any]:
    """The policy lets nothing be launched without them."""
    ends = datetime.now(UTC) + timedelta(hours=1)
    return tags.specification(resource, {tags.RUN: "doctor", tags.EXPIRES_AT: ends.isoformat()})


def _dry(ec2: AwsApi, operation: str, request: Mapping[str, Any]) -> str:
    """Ask EC2 whether we might. It never does it."""
    try:
        ec2.call(operation, {**request, "DryRun": True})
    except PermissionRefused as error:
        return f"not allowed: needs {error.permission}"
    except AwsError as error:
        return "" if error.code == _DRY_RUN else str(error)
    return "EC2 did not understand that it was asked only"


def _bucket(s3: AwsApi, bucket: str) -> Callable[[], str]:
    def look() -> str:
        reply = found(s3, "head_bucket", {"Bucket": bucket})
        return "there is no such bucket" if reply is None else ""

    return look


def _closed_bucket(s3: AwsApi, bucket: str) -> Callable[[], str]:
    def look() -> str:
        try:
            reply = s3.call("get_public_access_block", {"Bucket": bucket})
        except AwsError as error:
            if error.code == "NoSuchPublicAccessBlockConfiguration":
                return "block public access is not set on it"
            raise
        blocks = reply["PublicAccessBlockConfiguration"]
        return "" if all(blocks.values()) else "block public access is not complete on it"

    return look


__all__ = ["Finding", "caller", "check_account", "check_notices"]
