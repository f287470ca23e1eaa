"""The SQS queue of the double: what EventBridge would put there about instances."""

import hashlib
import json
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

INTERRUPTION = "EC2 Spot Instance Interruption Warning"
REBALANCE = "EC2 Instance Rebalance Recommendation"
STATE_CHANGE = "EC2 Instance State-change Notification"


HIDDEN_S = 10.0
"""A message that was received is not given again for so long, unless its reader says otherwise."""


@dataclass(slots=True)
class _Message:
    body: str
    sent_at: datetime
    visible_at_s: float = 0.0


@dataclass(slots=True)
class NoticeQueue:
    """Gives a message at least once: it comes again until it is deleted."""

    monotonic: Callable[[], float] = time.monotonic
    _messages: dict[str, _Message] = field(default_factory=dict[str, _Message])
    _lock: "threading.Lock" = field(default_factory=threading.Lock)

    def put(self, kind: str, instance_id: str, at: datetime, **detail: str) -> None:
        body = {
            "detail-type": kind,
            "time": at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "detail": {"instance-id": instance_id, **detail},
        }
        with self._lock:
            self._messages[uuid.uuid4().hex] = _Message(json.dumps(body), at)

    def answer(self, operation: str, params: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            match operation:
                case "ReceiveMessage":
                    return self._receive(params.get("MaxNumberOfMessages", 1))
                case "DeleteMessageBatch":
                    for entry in params["Entries"]:
                        self._messages.pop(entry["ReceiptHandle"], None)
                case "ChangeMessageVisibilityBatch":
                    for entry in params["Entries"]:
                        visible_at_s = self.monotonic() + entry["VisibilityTimeout"]
                        self._messages[entry["ReceiptHandle"]].visible_at_s = visible_at_s
                case _:
                    raise NotImplementedError(f"the double has no {operation}")
            return {"Successful": [{"Id": entry["Id"]} for entry in params["Entries"]]}

    def __len__(self) -> int:
        return len(self._messages)

    def _receive(self, most: int) -> dict[str, Any]:
        now_s = self.monotonic()
        waiting = [m for m in self._messages.items() if m[1].visible_at_s <= now_s][:most]
        for _, message in waiting:
            message.visible_at_s = now_s + HIDDEN_S
        return {"Messages": [_told(handle, message) for handle, message in waiting]}


def _told(handle: str, message: _Message) -> dict[str, Any]:
    return {
        "MessageId": handle,
        "ReceiptHandle": handle,
        "Body": message.body,
        "MD5OfBody": hashlib.md5(message.body.encode(), usedforsecurity=False).hexdigest(),
        "Attributes": {"SentTimestamp": str(int(message.sent_at.timestamp() * 1000))},
    }
