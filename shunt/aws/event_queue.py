"""Notices that EventBridge puts into an SQS queue, where one is configured."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shunt.aws.api import AwsApi
from shunt.interruption import Notice, NoticeKind, NoticeSource

_STATES_OF_AN_END = ("shutting-down", "terminated", "stopping", "stopped")
_KINDS = {
    "EC2 Spot Instance Interruption Warning": NoticeKind.INTERRUPTION,
    "EC2 Instance Rebalance Recommendation": NoticeKind.REBALANCE,
    "EC2 Instance State-change Notification": NoticeKind.LOST,
}


@dataclass(slots=True)
class EventQueue:
    """Reads a queue that only this run's controller reads."""

    sqs: AwsApi
    queue_url: str

    def notices(self) -> Iterator[Notice]:
        """What is waiting now. Deleted after it was handed out, so a message may come twice."""
        params = {"QueueUrl": self.queue_url, "MaxNumberOfMessages": 10, "WaitTimeSeconds": 0}
        for message in self.sqs.call("receive_message", params).get("Messages", ()):
            notice = notice_of(message["Body"])
            if notice is not None:
                yield notice
            handle = {"QueueUrl": self.queue_url, "ReceiptHandle": message["ReceiptHandle"]}
            self.sqs.call("delete_message", handle)


def notice_of(body: str) -> Notice | None:
    """The notice in an EventBridge event; None for any other message."""
    try:
        event: dict[str, Any] = json.loads(body)
        kind = _KINDS[event["detail-type"]]
        detail = event["detail"]
        if kind is NoticeKind.LOST and detail["state"] not in _STATES_OF_AN_END:
            return None
        at = datetime.fromisoformat(event["time"].replace("Z", "+00:00"))
        return Notice(kind, NoticeSource.SQS, detail["instance-id"], at)
    except (ValueError, KeyError, TypeError):  # a message of someone else: never a reason to stop
        return None
