"""The files of deployments/aws: least privilege, hardened, no secret, and valid shell."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

AWS = Path(__file__).parents[2] / "deployments" / "aws"


def statements(name: str) -> list[dict[str, Any]]:
    return json.loads((AWS / name).read_text())["Statement"]


def listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


@pytest.mark.parametrize("name", ["worker-policy.json", "controller-policy.json"])
def test_no_wildcard_action_and_no_wildcard_resource_but_for_reading(name: str) -> None:
    for statement in statements(name):
        assert statement["Effect"] == "Allow"
        for action in listed(statement["Action"]):
            assert "*" not in action
            if "*" in listed(statement["Resource"]):
                verb = action.split(":")[1]
                assert verb.startswith(("Describe", "Get", "List")), action


def test_a_worker_can_neither_buy_nor_delete_nor_touch_iam() -> None:
    actions = {a for s in statements("worker-policy.json") for a in listed(s["Action"])}
    assert {a.split(":")[0] for a in actions} == {"s3"}
    assert not {a for a in actions if "Delete" in a}


def test_a_controller_launches_with_tags_and_ends_only_what_is_tagged() -> None:
    by_sid = {s["Sid"]: s for s in statements("controller-policy.json")}
    needed = by_sid["LaunchOnlyWithOurTags"]["Condition"]["Null"]
    assert needed == {
        "aws:RequestTag/shunt:run": "false",
        "aws:RequestTag/shunt:expires-at": "false",
    }
    assert by_sid["EndOnlyWhatIsOurs"]["Condition"] == {
        "Null": {"aws:ResourceTag/shunt:run": "false"}
    }
    assert by_sid["GiveNodesTheWorkerRoleOnly"]["Resource"].endswith(":role/shunt-worker")
    passing = [s for s in by_sid.values() if "iam:PassRole" in listed(s["Action"])]
    assert len(passing) == 1


def test_the_launch_template_is_hardened() -> None:
    template = json.loads((AWS / "launch-template.json").read_text())
    assert template["MetadataOptions"]["HttpTokens"] == "required"
    assert template["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
    assert template["InstanceInitiatedShutdownBehavior"] == "terminate"
    assert all(m["Ebs"]["Encrypted"] for m in template["BlockDeviceMappings"])
    assert "KeyName" not in template


@pytest.mark.parametrize("script", sorted(AWS.glob("*.sh")), ids=lambda path: path.name)
def test_scripts_parse_and_hold_no_secret(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    assert not re.search(r"AKIA|SECRET|PASSWORD|hf_[A-Za-z]{8}", script.read_text())


def test_the_unit_ends_the_machine_in_every_way_it_can_end() -> None:
    unit = (AWS / "shunt-worker.service").read_text()
    for line in ("SuccessAction=poweroff", "FailureAction=poweroff", "StartLimitAction=poweroff"):
        assert line in unit
