import json
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shunt.aws.imds import Imds
from shunt.store.config import StoreConfig
from shunt.testing.ec2.imds_server import Metadata, imds_server
from workers.node import deadline
from workers.node.deadline import last_known_deadline, reason_to_end
from workers.node.instance import InstanceUnknown, read_instance

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TAGS = {"shunt:run": "nightly-1", "shunt:slot": "worker-0", "shunt:store": "s3://bucket/team"}
VALUES = {
    "instance-type": "g6.xlarge",
    "placement/region": "eu-west-1",
    "local-ipv4": "10.0.0.7",
}


@pytest.fixture
def metadata() -> Generator[Metadata]:
    served = Metadata(tags=dict(TAGS), values=dict(VALUES), instance_id="i-1")
    with imds_server(served):
        yield served


class Clock:
    """Virtual: only waiting takes time."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def test_an_instance_tells_all_that_its_node_needs(metadata: Metadata) -> None:
    found = read_instance(Imds(metadata.url))
    arguments = found.arguments()
    told = dict(zip(arguments[:-1:2], arguments[1::2], strict=True))
    assert json.loads(told["--store"]) == {"uri": "s3://bucket/team"}
    assert (told["--run"], told["--node"], told["--slot"]) == ("nightly-1", "i-1", "worker-0")
    assert (told["--address"], told["--instance-type"]) == ("10.0.0.7", "g6.xlarge")
    assert arguments[-1] == "--watch-imds"
    assert found.environment()["AWS_REGION"] == "eu-west-1"
    metadata.tags["shunt:kms-key"] = "alias/team"
    store = read_instance(Imds(metadata.url)).arguments()[1]
    assert StoreConfig.model_validate_json(store).kms_key_id == "alias/team"
    metadata.tags["shunt:recheck"] = "true"
    assert read_instance(Imds(metadata.url)).arguments()[-1] == "--recheck"


def test_metadata_that_fail_or_come_late_are_asked_again(metadata: Metadata) -> None:
    clock, slot = Clock(), metadata.tags.pop("shunt:slot")
    metadata.failing = 3

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        if clock.now_s > 20:
            metadata.tags["shunt:slot"] = slot

    found = read_instance(Imds(metadata.url), monotonic=clock.monotonic, sleep=sleep)
    assert found.slot == "worker-0"
    assert 20 < clock.now_s < 60


def test_metadata_that_never_tell_are_named(metadata: Metadata) -> None:
    clock = Clock()
    del metadata.tags["shunt:run"]
    with pytest.raises(InstanceUnknown, match=r"tags/instance/shunt:run is not told"):
        read_instance(Imds(metadata.url), monotonic=clock.monotonic, sleep=clock.sleep)
    assert clock.now_s < 600


def test_a_metadata_service_that_fails_ends_no_node(metadata: Metadata, tmp_path: Path) -> None:
    """The script before took a failed answer for midnight of today, and powered off."""
    kept = tmp_path / "run" / "expires-at"
    metadata.failing = 100
    assert last_known_deadline(Imds(metadata.url), kept) is None
    assert reason_to_end(None, now=NOW, up_s=3600.0) == ""
    assert "for a day" in reason_to_end(None, now=NOW, up_s=86_400.0)
    metadata.failing = 0
    metadata.tags["shunt:expires-at"] = NOW.isoformat()
    assert last_known_deadline(Imds(metadata.url), kept) == NOW
    metadata.failing = 100
    assert last_known_deadline(Imds(metadata.url), kept) == NOW  # the last known one holds


def test_the_deadline_decides_whatever_the_uptime() -> None:
    later = NOW + timedelta(hours=40)
    assert reason_to_end(later, now=NOW, up_s=30 * 3600.0) == ""
    assert "has passed" in reason_to_end(NOW, now=NOW, up_s=60.0)


@pytest.mark.parametrize("told", ["", "soon", "2026-03-01", "2026-03-01T12:00:00"])
def test_what_is_no_instant_is_no_deadline(metadata: Metadata, told: str, tmp_path: Path) -> None:
    metadata.tags["shunt:expires-at"] = told
    assert last_known_deadline(Imds(metadata.url), tmp_path / "kept") is None


def test_the_timer_powers_off_by_systemctl(
    metadata: Metadata, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    tool = tmp_path / "systemctl"
    tool.write_text(f'#!/bin/sh\necho "$@" >> {log}\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    options = ["--imds-url", metadata.url, "--kept", str(tmp_path / "kept")]
    metadata.tags["shunt:expires-at"] = "2999-01-01T00:00:00+00:00"
    assert deadline.main(options) == 0
    assert not log.exists()
    metadata.tags["shunt:expires-at"] = "2001-01-01T00:00:00+00:00"
    assert deadline.main(options) == 0
    assert log.read_text() == "poweroff\n"
