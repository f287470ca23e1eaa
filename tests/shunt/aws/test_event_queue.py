"""The SQS queue: three EventBridge events become notices, anything else is dropped."""

import json

import boto3
import pytest
from moto import mock_aws

from shunt.aws.api import AwsApi
from shunt.aws.event_queue import EventQueue, notice_of
from shunt.interruption import NoticeKind
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


@pytest.mark.usefixtures("clients")
def test_the_queue_is_emptied(clients: Clients) -> None:
    del clients
    with mock_aws():
        sqs = boto3.client("sqs", region_name="us-east-1")
        url = sqs.create_queue(QueueName="notices")["QueueUrl"]
        sqs.send_message(QueueUrl=url, MessageBody="junk")
        sqs.send_message(QueueUrl=url, MessageBody=event("EC2 Spot Instance Interruption Warning"))
        queue = EventQueue(AwsApi(sqs), url)
        assert [n.node_id for n in [*queue.notices(), *queue.notices()]] == ["i-1"]
        assert list(queue.notices()) == []
