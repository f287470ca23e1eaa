"""The queue of spot notices: said first, made once, checked, undone, and open to the rule alone."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import boto3
import pytest
from moto import mock_aws

from shunt.aws.account.check import check_notices
from shunt.aws.account.notice_parts import NOTICES, NoticeDesk
from shunt.aws.account.setup import Step, notice_removals, notice_steps, perform
from shunt.aws.api import AwsApi, client_of
from shunt.aws.nodes.event_queue import EventQueue
from shunt.testing.ec2.double import Ec2Double
from shunt.testing.ec2.faults import unauthorised
from shunt.testing.ec2.market import Market
from tests.shunt.aws.conftest import START

FILES = Path(__file__).parents[4] / "deployments" / "aws"
MISSING = "there is none; run shunt aws setup --notices"
CHANGED = "it is not as setup makes it; run shunt aws setup --notices"


@pytest.fixture
def desk(clients: object) -> Iterator[NoticeDesk]:
    """An empty account of moto."""
    del clients
    with mock_aws():
        apis = [AwsApi(client_of(service, "us-east-1")) for service in ("sqs", "events")]
        yield NoticeDesk(*apis, account="123456789012", region="us-east-1", directory=FILES)


def states(steps: Callable[[NoticeDesk], list[Step]], desk: NoticeDesk) -> list[str]:
    return [step.state for step in steps(desk)]


def remedies(desk: NoticeDesk) -> list[str]:
    return [finding.remedy for finding in check_notices(desk)]


def test_the_queue_is_said_made_once_and_undone(desk: NoticeDesk) -> None:
    assert states(notice_steps, desk) == ["absent", "absent"] == states(notice_steps, desk)
    assert remedies(desk) == [MISSING, MISSING]
    assert perform(notice_steps(desk)) == 2
    assert states(notice_steps, desk) == ["there", "there"]
    assert remedies(desk) == ["", ""]
    assert perform(notice_steps(desk)) == 0
    assert perform(notice_removals(desk)) == 2
    assert perform(notice_removals(desk)) == 0
    assert states(notice_steps, desk) == ["absent", "absent"]


def test_what_somebody_changed_is_seen_and_mended(desk: NoticeDesk) -> None:
    perform(notice_steps(desk))
    desk.events.call("disable_rule", {"Name": NOTICES})
    kept = {"QueueUrl": desk.queue_url(), "Attributes": {"MessageRetentionPeriod": "345600"}}
    desk.sqs.call("set_queue_attributes", kept)
    assert remedies(desk) == [CHANGED, CHANGED]
    assert perform(notice_steps(desk)) == 2
    assert remedies(desk) == ["", ""]
    desk.events.call("remove_targets", {"Rule": NOTICES, "Ids": ["queue"]})
    assert remedies(desk) == ["", CHANGED]


def test_the_rule_and_nobody_else_may_send(desk: NoticeDesk) -> None:
    (statement,) = json.loads(desk.attributes()["Policy"])["Statement"]
    assert statement["Principal"] == {"Service": "events.amazonaws.com"}
    assert statement["Action"] == "sqs:SendMessage"
    assert statement["Resource"] == desk.queue_arn
    rule = f"arn:aws:events:us-east-1:123456789012:rule/{NOTICES}"
    assert statement["Condition"] == {"ArnEquals": {"aws:SourceArn": rule}}
    perform(notice_steps(desk))
    assert desk.events.call("describe_rule", {"Name": NOTICES})["Arn"] == rule


def test_an_event_of_ec2_comes_through_to_the_run_of_its_node(desk: NoticeDesk) -> None:
    """moto lets anybody speak for `aws.ec2`, which AWS does not."""
    perform(notice_steps(desk))
    for kind in (
        "EC2 Spot Instance Interruption Warning",
        "EC2 Instance State-change Notification",
    ):
        event = {"Source": "aws.ec2", "DetailType": kind, "Detail": '{"instance-id": "i-1"}'}
        boto3.client("events", region_name="us-east-1").put_events(Entries=[event])
    queue = EventQueue(
        desk.sqs, desk.queue_url(), ours=lambda _: True, now=lambda: datetime.now(UTC)
    )
    assert [(notice.kind.value, notice.node_id) for notice in queue.notices()] == [
        ("interruption", "i-1")
    ]


def test_rights_that_are_missing_are_named(desk: NoticeDesk) -> None:
    double = Ec2Double(
        Market(), lambda: START, faults=[unauthorised("GetQueueUrl", "DescribeRule")]
    )
    double.attach(desk.sqs.client)
    double.attach(desk.events.client)
    assert remedies(desk) == [
        "cannot look: needs ec2:GetQueueUrl",
        "cannot look: needs ec2:DescribeRule",
    ]
