"""What `shunt aws setup` makes as a CloudFormation template, out of the same files.

For accounts where people make nothing by hand: the stack's resources have the names that setup
gives, so that fleet, doctor and controller policy find them.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from shunt.aws.account.notice_parts import NOTICES, PATTERN, QUEUE_SETTINGS, TOLD
from shunt.aws.account.setup import TRUST, WORKER

_OURS = {
    "bucket": {"Ref": "Bucket"},
    "prefix": {"Ref": "Prefix"},
    "image": {"Ref": "Image"},
    "security_group": {"Ref": "NodeGroup"},
    "region": {"Ref": "AWS::Region"},
    "account": {"Ref": "AWS::AccountId"},
}
_NOTICES = "WithNotices"
_NAME = re.compile(r"\$\{([^}]+)\}")


def stack_template(directory: Path) -> str:
    """The template as JSON text."""
    template = {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": "shunt: roles, policies and launch template of nodes. Made by `shunt aws "
        "template` from deployments/aws; change it there.",
        "Parameters": {
            "Bucket": {"Type": "String", "Description": "Bucket of the runs, in this region"},
            "Prefix": {
                "Type": "String",
                "Default": "",
                "Description": "Of the store in the bucket; empty, or with a slash at its end",
                "AllowedPattern": "^$|^.*/$",
            },
            "Image": {
                "Type": "AWS::EC2::Image::Id",
                "Description": "AMI with GPU driver and worker environment (docs/fleet.md)",
            },
            "Vpc": {"Type": "AWS::EC2::VPC::Id", "Description": "Where the nodes are"},
            "Notices": {
                "Type": "String",
                "Default": "no",
                "AllowedValues": ["yes", "no"],
                "Description": "Whether to make a queue of spot notices",
            },
        },
        "Conditions": {_NOTICES: {"Fn::Equals": [{"Ref": "Notices"}, "yes"]}},
        "Resources": {**_resources(directory), **_notice_resources(directory)},
        "Outputs": {
            "LaunchTemplate": {"Value": {"Ref": "NodeTemplate"}},
            "NoticeQueueUrl": {"Condition": _NOTICES, "Value": {"Ref": "NoticeQueue"}},
        },
    }
    return json.dumps(template, indent=2) + "\n"


def _resources(directory: Path) -> dict[str, Any]:
    def read(name: str) -> Any:
        return _substituted(json.loads((directory / name).read_text()))

    launch = read("launch-template.json")
    user_data = (directory / "user-data.sh").read_text()
    return {
        "WorkerRole": {
            "Type": "AWS::IAM::Role",
            "Properties": {
                "RoleName": WORKER,
                "AssumeRolePolicyDocument": TRUST,
                "Policies": [{"PolicyName": WORKER, "PolicyDocument": read("worker-policy.json")}],
            },
        },
        "WorkerProfile": {
            "Type": "AWS::IAM::InstanceProfile",
            "Properties": {"InstanceProfileName": WORKER, "Roles": [{"Ref": "WorkerRole"}]},
        },
        "RunPolicy": _managed("run", read("run-policy.json")),
        "ControllerPolicy": _managed("controller", read("controller-policy.json")),
        "NodeGroup": {
            "Type": "AWS::EC2::SecurityGroup",
            "Properties": {
                "GroupName": WORKER,
                "GroupDescription": "Nodes of shunt: nothing comes in from outside",
                "VpcId": {"Ref": "Vpc"},
            },
        },
        "NodeTemplate": {
            "Type": "AWS::EC2::LaunchTemplate",
            "DependsOn": "WorkerProfile",
            "Properties": {
                "LaunchTemplateName": WORKER,
                "LaunchTemplateData": {**launch, "UserData": {"Fn::Base64": user_data}},
            },
        },
    }


def _notice_resources(directory: Path) -> dict[str, Any]:
    policy = json.loads((directory / "notice-queue-policy.json").read_text())
    queue, arn = {"Ref": "NoticeQueue"}, {"Fn::GetAtt": ["NoticeQueue", "Arn"]}
    resources = {
        "NoticeQueue": ("AWS::SQS::Queue", {"QueueName": NOTICES, **QUEUE_SETTINGS}),
        "NoticeQueuePolicy": (
            "AWS::SQS::QueuePolicy",
            {"Queues": [queue], "PolicyDocument": _substituted(policy)},
        ),
        "NoticeRule": (
            "AWS::Events::Rule",
            {
                "Name": NOTICES,
                "Description": TOLD,
                "EventPattern": PATTERN,
                "State": "ENABLED",
                "Targets": [{"Id": "queue", "Arn": arn}],
            },
        ),
    }
    return {
        name: {"Type": kind, "Condition": _NOTICES, "Properties": properties}
        for name, (kind, properties) in resources.items()
    }


def _managed(name: str, document: Any) -> dict[str, Any]:
    return {
        "Type": "AWS::IAM::ManagedPolicy",
        "Properties": {
            "ManagedPolicyName": name,
            "Path": "/shunt/",
            "PolicyDocument": document,
        },
    }


def _substituted(value: object) -> Any:
    """Our names become Fn::Sub; variables of IAM (`${aws:...}`) are handed on as they are."""
    if isinstance(value, Mapping):
        fields = cast("Mapping[str, object]", value)
        return {name: _substituted(part) for name, part in fields.items()}
    if isinstance(value, str):
        return _sub(value)
    if isinstance(value, Sequence):
        return [_substituted(part) for part in cast("Sequence[object]", value)]
    return value


def _sub(text: str) -> object:
    names = [name for name in _NAME.findall(text) if name in _OURS]
    if not names:
        return text
    escaped = _NAME.sub(lambda m: m[0] if m[1] in _OURS else f"${{!{m[1]}}}", text)
    return {"Fn::Sub": [escaped, {name: _OURS[name] for name in dict.fromkeys(names)}]}
