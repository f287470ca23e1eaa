"""The requests that buy a node: EC2 Fleet over several pools, RunInstances for exactly one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from shunt.aws import tags
from shunt.aws.errors import AwsError, error_of
from shunt.aws.nodes.intent import Intent
from shunt.aws.nodes.placement_group import group_name
from shunt.aws.nodes.pool import Pool, SlotSpec

METADATA_OPTIONS: dict[str, Any] = {
    "HttpTokens": "required",
    "HttpPutResponseHopLimit": 1,
    "InstanceMetadataTags": "enabled",
}
"""IMDSv2 only, and not from a container; the node reads its run and store from its tags."""


@dataclass(frozen=True, slots=True)
class LaunchSettings:
    """What is the same for every node of a run."""

    template: str
    """Name of the launch template that `shunt aws setup` made."""
    subnets: Mapping[str, str]
    """Subnet by zone."""
    placement_groups: bool = True
    """Nodes that work together are put near each other."""


def launch_request(
    spec: SlotSpec,
    pools: tuple[Pool, ...],
    *,
    settings: LaunchSettings,
    node_tags: Mapping[str, str],
    token: str,
) -> tuple[Literal["create_fleet", "run_instances"], dict[str, Any]]:
    """Operation and parameters. Tags go in the same call: nothing of ours is ever untagged."""
    if len(pools) == 1 and len(spec.pools) == 1:
        return "run_instances", _exact(spec, pools[0], settings, node_tags, token)
    return "create_fleet", _fleet(pools, settings, node_tags, token)


def _exact(
    spec: SlotSpec,
    pool: Pool,
    settings: LaunchSettings,
    node_tags: Mapping[str, str],
    token: str,
) -> dict[str, Any]:
    request: dict[str, Any] = {
        "LaunchTemplate": {"LaunchTemplateName": settings.template, "Version": "$Default"},
        "InstanceType": pool.instance_type,
        "SubnetId": settings.subnets[pool.zone],
        "Placement": {"AvailabilityZone": pool.zone},
        "MinCount": 1,
        "MaxCount": 1,
        "ClientToken": token,
        "InstanceInitiatedShutdownBehavior": "terminate",
        "MetadataOptions": METADATA_OPTIONS,
        "TagSpecifications": [
            tags.specification("instance", node_tags),
            tags.specification("volume", node_tags),
        ],
    }
    if spec.group and settings.placement_groups:
        request["Placement"]["GroupName"] = group_name(spec.group, pool.zone)
    if pool.market == "spot":
        request["InstanceMarketOptions"] = {
            "MarketType": "spot",
            "SpotOptions": {
                "SpotInstanceType": "one-time",
                "InstanceInterruptionBehavior": "terminate",
            },
        }
    return request


def _fleet(
    pools: tuple[Pool, ...], settings: LaunchSettings, node_tags: Mapping[str, str], token: str
) -> dict[str, Any]:
    market = pools[0].market
    overrides = [
        {"InstanceType": pool.instance_type, "SubnetId": settings.subnets[pool.zone]}
        | {"AvailabilityZone": pool.zone}
        for pool in pools
    ]
    request: dict[str, Any] = {
        "Type": "instant",
        "ClientToken": token,
        "LaunchTemplateConfigs": [
            {
                "LaunchTemplateSpecification": {
                    "LaunchTemplateName": settings.template,
                    "Version": "$Default",
                },
                "Overrides": overrides,
            }
        ],
        "TargetCapacitySpecification": {
            "TotalTargetCapacity": 1,
            "DefaultTargetCapacityType": market,
        },
        "TagSpecifications": [
            tags.specification("instance", node_tags),
            tags.specification("fleet", node_tags),
        ],
    }
    if market == "spot":
        request["SpotOptions"] = {
            "AllocationStrategy": "price-capacity-optimized",
            "InstanceInterruptionBehavior": "terminate",
        }
    else:
        request["OnDemandOptions"] = {"AllocationStrategy": "lowest-price"}
    return request


def pools_of(intent: Intent) -> list[Pool]:
    """The pools that a kept request asks for."""
    request = intent.request
    if intent.operation == "run_instances":
        market = "spot" if "InstanceMarketOptions" in request else "on-demand"
        return [Pool(request["InstanceType"], request["Placement"]["AvailabilityZone"], market)]
    market = request["TargetCapacitySpecification"]["DefaultTargetCapacityType"]
    overrides = request["LaunchTemplateConfigs"][0]["Overrides"]
    return [Pool(o["InstanceType"], o["AvailabilityZone"], market) for o in overrides]


def refused_pool(told: Mapping[str, Any], pools: Sequence[Pool]) -> Pool:
    """The pool that an error of EC2 Fleet is about."""
    override = told["LaunchTemplateAndOverrides"]["Overrides"]
    return Pool(override["InstanceType"], override["AvailabilityZone"], pools[0].market)


def group_of(intent: Intent) -> str:
    return intent.request.get("Placement", {}).get("GroupName", "")


def expiry_of(intent: Intent) -> datetime | None:
    """What its node was told at the launch."""
    for specification in intent.request.get("TagSpecifications", ()):
        found = tags.of(specification).get(tags.EXPIRES_AT)
        if specification["ResourceType"] == "instance" and found:
            return datetime.fromisoformat(found)
    return None


def refusal(told: Mapping[str, str]) -> AwsError:
    return error_of("create_fleet", told["ErrorCode"], told.get("ErrorMessage", ""))
