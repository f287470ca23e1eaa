"""The SQS queue: three EventBridge events become notices, anything else is dropped."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from moto import mock_aws

from shunt.aws.api import AwsApi
from shunt.aws.nodes.event_queue import STALE_AFTER, EventQueue, notice_of
from shunt.fleet.notice import NoticeKind
from tests.shunt.aws.conftest import Clients


def event(detail_type: str, **detail: str) -> str:
    told = {"instance-id": "i-1", **detail}
    return json.dumps({"detail-type": detail_type, "time": "2026-03-01T00:00:00Z", "detail": told})


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (event("EC2 Spot Instance Interruption Warning"), NoticeKind.INTERRUPTION),
        (event("EC2 Instance Rebalance Recommendation"), NoticeKind.REBALANCE),
        (event("EC2 Instance State-change Notification", state="terminated"), NoticeKind.LOST),
        (event("EC2 Instance State-change Notification", state="running"), None),
        (event("Something Else"), None),
        ("not json", None),
        ("[]", None),
    ],
)
def test_an_event_becomes_a_notice(body: str, kind: NoticeKind | None) -> None:
    notice = notice_of(body)
    assert (notice.kind if notice else None) == kind


WARNING = "EC2 Spot Instance Interruption Warning"


@pytest.fixture
def sqs(clients: Clients) -> Iterator[Any]:
    """A queue of moto that gives a message again after ten seconds, as ours does."""
    del clients
    with mock_aws():
        client = boto3.client("sqs", region_name="us-east-1")
        client.create_queue(QueueName="notices", Attributes={"VisibilityTimeout": "10"})
        yield client


def reader(sqs: Any, *nodes: str, later: timedelta = timedelta()) -> EventQueue:
    """The queue as the controller of a run with these nodes sees it."""
    url = sqs.get_queue_url(QueueName="notices")["QueueUrl"]
    return EventQueue(
        AwsApi(sqs), url, ours=nodes.__contains__, now=lambda: datetime.now(UTC) + later
    )


def send(sqs: Any, *bodies: str) -> None:
    url = sqs.get_queue_url(QueueName="notices")["QueueUrl"]
    for body in bodies:
        sqs.send_message(QueueUrl=url, MessageBody=body)


def heard(queue: EventQueue) -> list[str]:
    return sorted(notice.node_id for notice in queue.notices())


def test_the_queue_is_emptied(sqs: Any) -> None:
    send(sqs, "junk", event(WARNING))
    queue = reader(sqs, "i-1")
    assert heard(queue) + heard(queue) == ["i-1"]
    assert heard(reader(sqs, "i-1")) == []


def test_runs_that_share_a_queue_swallow_nothing_of_each_other(sqs: Any) -> None:
    bodies = [event(WARNING, **{"instance-id": f"i-{n}"}) for n in range(24)]
    send(sqs, *bodies)
    even = reader(sqs, *(f"i-{n}" for n in range(0, 24, 2)))
    odd = reader(sqs, *(f"i-{n}" for n in range(1, 24, 2)))
    found = [heard(even), heard(odd)]
    assert [len(nodes) for nodes in found] == [12, 12]
    assert {*found[0], *found[1]} == {f"i-{n}" for n in range(24)}


def test_what_is_of_no_run_is_given_back_for_five_minutes_and_then_deleted(sqs: Any) -> None:
    send(sqs, event(WARNING))
    assert heard(reader(sqs, "i-2")) == []
    assert heard(reader(sqs, "i-2", later=STALE_AFTER - timedelta(seconds=5))) == []
    assert heard(reader(sqs, "i-2", later=STALE_AFTER)) == []
    assert heard(reader(sqs, "i-1")) == []


def test_a_look_asks_a_bounded_number_of_times(sqs: Any) -> None:
    send(sqs, *["junk"] * 120)
    queue = reader(sqs, "i-1")
    heard(queue)
    assert queue.sqs.calls == {"receive_message": 10, "delete_message_batch": 10}
