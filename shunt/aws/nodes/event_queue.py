"""Notices that EventBridge puts into an SQS queue, where one is configured.

Several runs may share one queue: whoever receives a message about a node of another run gives it
back at once. SQS promises each message at least once, so one may come twice.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from shunt.aws.api import AwsApi
from shunt.fleet.notice import Notice, NoticeKind, NoticeSource

_STATES_OF_AN_END = ("shutting-down", "terminated", "stopping", "stopped")
_KINDS = {
    "EC2 Spot Instance Interruption Warning": NoticeKind.INTERRUPTION,
    "EC2 Instance Rebalance Recommendation": NoticeKind.REBALANCE,
    "EC2 Instance State-change Notification": NoticeKind.LOST,
}
STALE_AFTER = timedelta(minutes=5)
"""What nobody took by then is of no run: its node would be gone by now."""
MOST_RECEIVES = 10
"""Of one look: the rest waits for the next."""
_BATCH = 10
"""The most messages that SQS gives or takes in one call."""


@dataclass(slots=True)
class EventQueue:
    """Reads a queue for one run."""

    sqs: AwsApi
    queue_url: str
    ours: Callable[[str], bool]
    """Whether a node is one of this run's."""
    now: Callable[[], datetime]

    def notices(self) -> Iterator[Notice]:
        """What is waiting now about our nodes; deleted after it was handed out. Raises
        `AwsError`."""
        back: list[Mapping[str, Any]] = []
        for _ in range(MOST_RECEIVES):
            messages, taken = self._receive(), list[Mapping[str, Any]]()
            for message in messages:
                notice = notice_of(message["Body"])
                if notice is not None and self.ours(notice.node_id):
                    yield notice
                others = notice is not None and self._of_others(message, notice)
                (back if others else taken).append(message)
            self._delete(taken)
            if len(messages) < _BATCH:
                break
        self._give_back(back)

    def _of_others(self, message: Mapping[str, Any], notice: Notice) -> bool:
        sent = datetime.fromtimestamp(int(message["Attributes"]["SentTimestamp"]) / 1000, UTC)
        return not self.ours(notice.node_id) and self.now() - sent < STALE_AFTER

    def _receive(self) -> Sequence[Mapping[str, Any]]:
        params = {
            "QueueUrl": self.queue_url,
            "MaxNumberOfMessages": _BATCH,
            "WaitTimeSeconds": 0,
            "MessageSystemAttributeNames": ["SentTimestamp"],
        }
        return self.sqs.call("receive_message", params).get("Messages", ())

    def _give_back(self, messages: Sequence[Mapping[str, Any]]) -> None:
        """At once, as their run may ask at any moment; but not while we still read, or these would
        hide what is behind them."""
        for first in range(0, len(messages), _BATCH):
            some = messages[first : first + _BATCH]
            entries = [{**_entry(message), "VisibilityTimeout": 0} for message in some]
            params = {"QueueUrl": self.queue_url, "Entries": entries}
            self.sqs.call("change_message_visibility_batch", params)

    def _delete(self, messages: Sequence[Mapping[str, Any]]) -> None:
        if messages:
            entries = [_entry(message) for message in messages]
            self.sqs.call("delete_message_batch", {"QueueUrl": self.queue_url, "Entries": entries})


def _entry(message: Mapping[str, Any]) -> dict[str, Any]:
    """Message ids are unique in a batch, and short enough to name its entries."""
    return {"Id": message["MessageId"], "ReceiptHandle": message["ReceiptHandle"]}


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
