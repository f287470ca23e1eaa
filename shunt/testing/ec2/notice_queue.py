"""The SQS queue of the double: what EventBridge would put there about instances."""

import hashlib
import json
import threading
import uuid
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

INTERRUPTION = "EC2 Spot Instance Interruption Warning"
REBALANCE = "EC2 Instance Rebalance Recommendation"
STATE_CHANGE = "EC2 Instance State-change Notification"


@dataclass(slots=True)
class NoticeQueue:
    """Gives a message at least once: it comes again until it is deleted."""

    _bodies: dict[str, str] = field(default_factory=dict[str, str])
    _lock: "threading.Lock" = field(default_factory=threading.Lock)

    def put(self, kind: str, instance_id: str, at: datetime, **detail: str) -> None:
        body = {
            "detail-type": kind,
            "time": at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "detail": {"instance-id": instance_id, **detail},
        }
        with self._lock:
            self._bodies[uuid.uuid4().hex] = json.dumps(body)

    def answer(self, operation: str, params: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            if operation == "DeleteMessage":
                self._bodies.pop(params["ReceiptHandle"], None)
                return {}
            assert operation == "ReceiveMessage", f"the double has no {operation}"
            waiting = list(self._bodies.items())[: params.get("MaxNumberOfMessages", 1)]
            return {"Messages": [_message(handle, body) for handle, body in waiting]}


def _message(handle: str, body: str) -> dict[str, str]:
    md5 = hashlib.md5(body.encode(), usedforsecurity=False).hexdigest()
    return {"MessageId": handle, "ReceiptHandle": handle, "Body": body, "MD5OfBody": md5}
