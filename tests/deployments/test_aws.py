"""The files of deployments/aws: least privilege, hardened, no secret, and valid shell."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shunt.aws.account.setup import PIPELINE_PORTS
from shunt.aws.account.stack import stack_template
from shunt.fleet.worker_exit import EXPECTED_EXITS, FINAL_EXITS
from workers.pipeline.network import EPHEMERAL, PORTS

AWS = Path(__file__).parents[2] / "deployments" / "aws"


def statements(name: str) -> list[dict[str, Any]]:
    return json.loads((AWS / name).read_text())["Statement"]


def listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


@pytest.mark.parametrize(
    "name", ["worker-policy.json", "run-policy.json", "controller-policy.json"]
)
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
    assert {a.split(":")[0] for a in actions} == {"s3", "kms"}
    [key] = [s for s in statements("worker-policy.json") if "kms:Decrypt" in s["Action"]]
    assert "s3." in key["Condition"]["StringEquals"]["kms:ViaService"], "by S3, of our bucket alone"
    assert not {a for a in actions if "Delete" in a}


def test_a_controller_reads_queues_of_ours_and_does_nothing_else_to_them() -> None:
    (reading,) = [
        s
        for s in statements("controller-policy.json")
        if any(action.startswith("sqs:") for action in listed(s["Action"]))
    ]
    names = ("ChangeMessageVisibility", "DeleteMessage", "ReceiveMessage")
    assert sorted(reading["Action"]) == [f"sqs:{name}" for name in names]
    assert reading["Resource"].endswith(":shunt-*")


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
    roles = [r.split(":role/")[1] for r in by_sid["GiveNodesTheWorkerRoleOnly"]["Resource"]]
    assert roles == ["shunt-worker", "shunt/run/*"]
    passing = [s for s in by_sid.values() if "iam:PassRole" in listed(s["Action"])]
    assert len(passing) == 1


def test_a_controller_makes_no_role_that_may_do_more_than_a_run() -> None:
    """Every right over roles is under /shunt/run/; making one needs the boundary, and nothing
    but the policy of runs may be attached."""
    boundary = "arn:aws:iam::${account}:policy/shunt/run"
    for statement in statements("controller-policy.json"):
        rights = [a for a in listed(statement["Action"]) if a.startswith("iam:")]
        for resource in listed(statement["Resource"]) if rights else []:
            allowed = ("/shunt/run/*",) + (("shunt-worker",) if "iam:PassRole" in rights else ())
            assert resource.endswith(allowed), resource
        if "iam:CreateRole" in rights:
            equal = {"StringEquals": {"iam:PermissionsBoundary": boundary}}
            assert statement["Condition"] == equal
        if "iam:AttachRolePolicy" in rights:
            assert statement["Condition"] == {"ArnEquals": {"iam:PolicyARN": boundary}}
        assert not {"iam:PutRolePolicy", "iam:UpdateAssumeRolePolicy"} & set(rights)
        assert not {a for a in rights if "Boundary" in a}


def test_the_role_of_a_run_reaches_its_own_prefix_only() -> None:
    for statement in statements("run-policy.json"):
        if statement["Sid"] == "ReadWeightsAndCode":
            assert statement["Action"] == "s3:GetObject"
        else:
            assert "runs/${aws:PrincipalTag/shunt-run}/*" in json.dumps(statement)


def test_the_stack_is_made_from_these_files_and_cfn_lint_finds_nothing() -> None:
    shipped = AWS / "stack.json"
    assert shipped.read_text() == stack_template(AWS), "run: shunt aws template --out " + str(
        shipped.relative_to(AWS.parents[1])
    )
    linted = subprocess.run(
        [Path(sys.executable).with_name("cfn-lint"), "--regions", "us-east-1", "--", shipped],
        capture_output=True,
        text=True,
        check=False,
    )
    assert linted.returncode == 0, linted.stdout + linted.stderr


def test_the_stack_keeps_the_variables_of_iam() -> None:
    """`${aws:...}` is for IAM to fill in, `${bucket}` for CloudFormation."""
    resources = json.loads((AWS / "stack.json").read_text())["Resources"]
    text = json.dumps(resources["RunPolicy"])
    assert "runs/${!aws:PrincipalTag/shunt-run}/*" in text
    unfilled = re.compile(r"\$\{(?!!)(\w+)\}")
    for name, resource in resources.items():
        for fn in substitutions(resource):
            assert set(unfilled.findall(fn[0])) == set(fn[1]), name


def substitutions(value: Any) -> list[Any]:
    """Every Fn::Sub in it."""
    if isinstance(value, dict):
        found = [value["Fn::Sub"]] if "Fn::Sub" in value else []
        return found + [s for part in value.values() for s in substitutions(part)]
    if isinstance(value, list):
        return [s for part in value for s in substitutions(part)]
    return []


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


def boot(tmp_path: Path, *, image_has_worker: bool, sha_ok: bool = True) -> tuple[int, list[str]]:
    """Run the first boot with every command of the machine replaced by one that tells."""
    log, bin_, home = tmp_path / "log", tmp_path / "bin", tmp_path / "opt"
    bin_.mkdir()
    for name in ("id", "useradd", "shutdown", "mkfs.ext4", "mount", "chown", "mdadm", "aws"):
        tool(bin_, name, f'echo "{name} $*" >> {log}')
    tool(bin_, "lsblk", "echo '/dev/nvme1n1 Amazon EC2 NVMe Instance Storage'")
    tool(bin_, "systemctl", f'echo "systemctl $*" >> {log}')
    tool(bin_, "install", f'echo "install $*" >> {log}')
    tool(bin_, "tar", f'echo "tar $*" >> {log}')
    tool(bin_, "sha256sum", "exit " + str(0 if sha_ok else 1))
    for name in ("dnf", "apt-get"):
        tool(bin_, name, f'echo "{name} $*" >> {log}')
    pip = f'mkdir -p "$3/bin"; printf "#!/bin/bash\\necho pip \\$* >> {log}\\n" > "$3/bin/pip"'
    tool(bin_, "python3.11", pip + '; chmod +x "$3/bin/pip"')
    if image_has_worker:
        (home / "venv/bin").mkdir(parents=True)
        tool(home / "venv/bin", "python", "true")
    script = (AWS / "user-data.sh").read_text()
    script = script.replace("/opt/shunt", str(home)).replace("/var/cache", str(tmp_path / "cache"))
    (tmp_path / "user-data").write_text(script)
    bundle = {"SHUNT_BUNDLE": "s3://b/bundles/x.tar.gz", "SHUNT_BUNDLE_SHA256": "00"}
    done = subprocess.run(
        [shutil.which("bash") or "bash", tmp_path / "user-data"],
        env={"PATH": f"{bin_}:{os.environ['PATH']}", **bundle},
        capture_output=True,
        check=False,
    )
    return done.returncode, log.read_text().splitlines()


def tool(folder: Path, name: str, does: str) -> None:
    (folder / name).write_text(f"#!/bin/bash\n{does}\n")
    (folder / name).chmod(0o755)


def test_first_boot_of_an_image_with_the_worker_only_starts_it(tmp_path: Path) -> None:
    code, told = boot(tmp_path, image_has_worker=True)
    assert code == 0
    assert not [line for line in told if line.startswith(("aws", "pip", "tar"))]
    assert told[-1] == "systemctl enable --now shunt-deadline.timer shunt-worker.service"
    assert any(line.startswith("mount") and line.endswith("cache/shunt") for line in told)


def test_first_boot_installs_the_lock_with_hashes(tmp_path: Path) -> None:
    code, told = boot(tmp_path, image_has_worker=False)
    assert code == 0, told
    (pip,) = [line for line in told if line.startswith("pip")]
    assert "--require-hashes" in pip
    assert "--no-deps" in pip
    assert pip.endswith("requirements/worker.lock")
    assert told[0] == "shutdown -h +60"
    assert told[-2:] == [
        "shutdown -c",
        "systemctl enable --now shunt-deadline.timer shunt-worker.service",
    ]


def test_a_bundle_of_another_digest_ends_the_node(tmp_path: Path) -> None:
    code, told = boot(tmp_path, image_has_worker=False, sha_ok=False)
    assert code != 0
    assert told[-1] == "shutdown -h now"
    assert not [line for line in told if line.startswith(("tar", "pip", "systemctl"))]


def test_the_unit_ends_the_machine_in_every_way_it_can_end() -> None:
    unit = (AWS / "shunt-worker.service").read_text()
    for line in ("SuccessAction=poweroff", "FailureAction=poweroff", "StartLimitAction=poweroff"):
        assert line in unit


def test_the_unit_goes_by_the_exit_codes_of_workers() -> None:
    unit = (AWS / "shunt-worker.service").read_text()
    for setting, codes in (
        ("SuccessExitStatus", EXPECTED_EXITS),
        ("RestartPreventExitStatus", FINAL_EXITS),
    ):
        (given,) = re.findall(f"^{setting}=(.*)$", unit, re.MULTILINE)
        assert {0, *map(int, given.split())} == set(codes)


def test_the_ports_of_a_pipeline_are_those_that_its_group_admits() -> None:
    """Our own by their numbers, the kernel's by the setting that the unit makes."""
    unit = (AWS / "shunt-worker.service").read_text()
    setting = re.search(r'^ExecStartPre=.*ip_local_port_range=(\d+) (\d+)"$', unit, re.MULTILINE)
    assert setting is not None
    ours = (PORTS.start, PORTS.stop - 1)
    kernel = (EPHEMERAL.start, EPHEMERAL.stop - 1)
    assert (int(setting[1]), int(setting[2])) == kernel
    assert (ours, kernel) == PIPELINE_PORTS
