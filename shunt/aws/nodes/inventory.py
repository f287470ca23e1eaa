"""What of ours is in the account, by tag; and ending it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shunt.aws import tags
from shunt.aws.api import AwsApi
from shunt.aws.errors import ConfigurationError
from shunt.errors import ShuntError

LIVING_STATES = ("pending", "running", "stopping", "stopped")
_BILLED_STATES = (*LIVING_STATES, "shutting-down")
_TERMINATE_BATCH = 100
"""Small enough that one bad id spoils little, and under every documented limit."""
_UNKNOWN_NODE = "InvalidInstanceID.NotFound"
SETTLE_S = 10.0
"""Between two listings that must both be empty: a launch may be late to appear."""
GONE_WITHIN_S = 900.0


class NotGone(ShuntError):
    """Instances of a run were still there long after their end was asked for."""


@dataclass(frozen=True, slots=True)
class OurNode:
    """One instance of ours in the account."""

    instance_id: str
    run_id: str
    slot: str
    instance_type: str
    zone: str
    spot: bool
    state: str
    launched_at: datetime
    expires_at: datetime | None
    store_uri: str = ""
    """Where its run keeps its state."""


def describe_run(ec2: AwsApi, run_id: str) -> list[dict[str, Any]]:
    """The run's instances, ended ones too while EC2 still shows them."""
    return _describe(ec2, [{"Name": f"tag:{tags.RUN}", "Values": [run_id]}])


def list_nodes(ec2: AwsApi) -> list[OurNode]:
    """Everything of ours in the region that still costs money, oldest first."""
    filters = [
        {"Name": "tag-key", "Values": [tags.RUN]},
        {"Name": "instance-state-name", "Values": list(_BILLED_STATES)},
    ]
    return sorted(map(_node, _describe(ec2, filters)), key=lambda node: node.launched_at)


def terminate_instances(ec2: AwsApi, instance_ids: Sequence[str]) -> None:
    """Ask for their end. Ending what has ended is no error, nor is a node that EC2 does not know
    (any more, or yet); but one of those spoils the call for all others in it."""
    for start in range(0, len(instance_ids), _TERMINATE_BATCH):
        batch = list(instance_ids[start : start + _TERMINATE_BATCH])
        try:
            ec2.call("terminate_instances", {"InstanceIds": batch})
        except ConfigurationError as error:
            if error.code != _UNKNOWN_NODE:
                raise
            if len(batch) > 1:
                for instance_id in batch:
                    terminate_instances(ec2, [instance_id])


def wait_until_gone(
    ec2: AwsApi,
    run_id: str,
    *,
    monotonic: Callable[[], float],
    sleep: Callable[[float], None],
    settle_s: float = SETTLE_S,
) -> None:
    """End all of the run and return once two listings in a row show nothing. Raises `NotGone`."""
    started_s = monotonic()
    empty = 0
    while True:
        present = [i for i in describe_run(ec2, run_id) if i["State"]["Name"] in _BILLED_STATES]
        living = [i["InstanceId"] for i in present if i["State"]["Name"] in LIVING_STATES]
        if living:
            terminate_instances(ec2, living)
        empty = 0 if present else empty + 1
        if empty == 2:
            return
        if monotonic() - started_s > GONE_WITHIN_S:
            left = ", ".join(i["InstanceId"] for i in present)
            raise NotGone(f"run {run_id}: still there after {GONE_WITHIN_S:.0f} s: {left}")
        sleep(settle_s)


def _describe(ec2: AwsApi, filters: list[dict[str, Any]]) -> list[dict[str, Any]]:
    params = {"Filters": filters, "MaxResults": 1000}
    reservations = ec2.pages("describe_instances", params, "Reservations")
    return [instance for reservation in reservations for instance in reservation["Instances"]]


def _node(instance: dict[str, Any]) -> OurNode:
    tagged = tags.of(instance)
    expires = tagged.get(tags.EXPIRES_AT)
    return OurNode(
        instance_id=instance["InstanceId"],
        run_id=tagged.get(tags.RUN, ""),
        slot=tagged.get(tags.SLOT, ""),
        instance_type=instance["InstanceType"],
        zone=instance["Placement"]["AvailabilityZone"],
        spot=instance.get("InstanceLifecycle") == "spot",
        state=instance["State"]["Name"],
        launched_at=instance["LaunchTime"],
        expires_at=datetime.fromisoformat(expires) if expires else None,
        store_uri=tagged.get(tags.STORE, ""),
    )
