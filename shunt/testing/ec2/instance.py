"""One instance of the double, and how EC2 describes it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shunt.aws.nodes.pool import Pool


@dataclass(slots=True)
class Instance:
    """An instance, living or ended."""

    instance_id: str
    pool: Pool
    launched_at: datetime
    tags: dict[str, str]
    metadata_options: dict[str, Any]
    instance_profile: str
    shutdown_behaviour: str
    token: str
    placement_group: str = ""
    ended_at: datetime | None = None
    end_code: str = ""
    notice_at: datetime | None = None
    rebalance_at: datetime | None = None
    stopped: bool = True
    """Once ended: whether what stands for it is gone too. EC2 bills until `ended_at`."""

    @property
    def state(self) -> str:
        if self.ended_at is None:
            return "running"
        return "terminated" if self.stopped else "shutting-down"


def described(instance: Instance) -> dict[str, Any]:
    """As an entry of DescribeInstances."""
    told: dict[str, Any] = {
        "InstanceId": instance.instance_id,
        "InstanceType": instance.pool.instance_type,
        "Placement": {"AvailabilityZone": instance.pool.zone},
        "State": {"Name": instance.state},
        "LaunchTime": instance.launched_at,
        "Tags": [{"Key": key, "Value": value} for key, value in instance.tags.items()],
        "MetadataOptions": instance.metadata_options,
        "ClientToken": instance.token,
        "StateTransitionReason": "",
    }
    if instance.pool.market == "spot":
        told["InstanceLifecycle"] = "spot"
        told["SpotInstanceRequestId"] = f"sir-{instance.instance_id[2:]}"
    if instance.instance_profile:
        told["IamInstanceProfile"] = {"Arn": f"arn:aws:iam::1:{instance.instance_profile}"}
    if instance.ended_at is not None:
        told["StateReason"] = {"Code": instance.end_code, "Message": instance.end_code}
        ended = instance.ended_at.strftime("%Y-%m-%d %H:%M:%S GMT")
        told["StateTransitionReason"] = f"User initiated ({ended})"
    return told


def matches(instance: Instance, params: dict[str, Any]) -> bool:
    """Whether the filters of a describe call let the instance through."""
    ids = params.get("InstanceIds")
    if ids and instance.instance_id not in ids:
        return False
    return all(_passes(instance, f["Name"], f["Values"]) for f in params.get("Filters", ()))


def _passes(instance: Instance, name: str, values: list[str]) -> bool:
    if name.startswith("tag:"):
        return instance.tags.get(name.removeprefix("tag:")) in values
    if name == "tag-key":
        return any(value in instance.tags for value in values)
    if name == "instance-state-name":
        return instance.state in values
    raise NotImplementedError(f"the double has no filter {name}")
