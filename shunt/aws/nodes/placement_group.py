"""Placement groups: nodes of one pipeline near each other. They cost nothing, and end with the run.

A cluster placement group cannot leave its zone, so each zone has one of its own.
"""

from shunt.aws import tags
from shunt.aws.api import AwsApi
from shunt.aws.errors import AwsError

_THERE = "InvalidPlacementGroup.Duplicate"
_NOT_THERE = "InvalidPlacementGroup.Unknown"


def group_name(group: str, zone: str) -> str:
    return f"{group}-{zone}"


def make_placement_group(ec2: AwsApi, run_id: str, name: str) -> None:
    """Idempotent. Raises `AwsError`."""
    specification = tags.specification("placement-group", {tags.RUN: run_id})
    request = {"GroupName": name, "Strategy": "cluster", "TagSpecifications": [specification]}
    try:
        ec2.call("create_placement_group", request)
    except AwsError as error:
        if error.code != _THERE:
            raise


def remove_placement_groups(ec2: AwsApi, run_id: str) -> None:
    """Remove those of the run, whose nodes must have ended. Raises `AwsError`."""
    filters = [{"Name": f"tag:{tags.RUN}", "Values": [run_id]}]
    groups = ec2.call("describe_placement_groups", {"Filters": filters})["PlacementGroups"]
    for group in groups:
        try:
            ec2.call("delete_placement_group", {"GroupName": group["GroupName"]})
        except AwsError as error:
            if error.code != _NOT_THERE:
                raise
