"""The instance metadata service, version 2 only: what a node asks about itself and its end.

Plain HTTP by the standard library, so that a worker needs no AWS client.
"""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from shunt.fleet.notice import Notice, NoticeKind, NoticeSource

IMDS_URL = "http://169.254.169.254"
TOKEN_TTL_S = 3600
_TOKEN_MARGIN_S = 60.0
TIMEOUT_S = 2.0
"""As AWS's node termination handler; a node must not hang on its own metadata."""
POLL_S = 2.0
"""A notice is seen within one poll and one timeout: under five seconds."""


@dataclass(slots=True)
class Imds:
    """Raises `OSError` where the service does not answer; a 404 is the quiet state, and None."""

    url: str = IMDS_URL
    monotonic: Callable[[], float] = time.monotonic
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    clock_offset_s: float | None = None
    """Seconds by which this machine's clock is ahead of the service's, by its last reply."""
    _token: str = field(default="", repr=False)
    _token_until_s: float = 0.0

    def get(self, path: str) -> str | None:
        """The text at `/latest/{path}`. Renews the token when it is old or was refused."""
        for renewed in (False, True):
            try:
                return self._get(path)
            except urllib.error.HTTPError as error:
                with error:
                    if error.code == 404:
                        return None
                    if error.code != 401 or renewed:
                        raise
                self._token = ""
        raise AssertionError("unreachable")

    def notices(self) -> list[Notice]:
        """What the provider says now: nothing, a recommendation, a notice, or both."""
        found: list[Notice] = []
        action = self.get("meta-data/spot/instance-action")
        if action:
            told = json.loads(action)
            found.append(_notice(NoticeKind.INTERRUPTION, told["time"]))
        advice = self.get("meta-data/events/recommendations/rebalance")
        if advice:
            found.append(_notice(NoticeKind.REBALANCE, json.loads(advice)["noticeTime"]))
        return found

    def tag(self, name: str) -> str | None:
        """A tag of this instance (the launch template allows tags in metadata)."""
        return self.get(f"meta-data/tags/instance/{name}")

    def _get(self, path: str) -> str:
        if not self._token or self.monotonic() >= self._token_until_s:
            self._renew()
        headers = {"X-aws-ec2-metadata-token": self._token}
        request = urllib.request.Request(f"{self.url}/latest/{path}", headers=headers)
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:
            if (date := reply.headers.get("Date")) is not None:
                there = parsedate_to_datetime(date)
                self.clock_offset_s = (self.now() - there).total_seconds()
            return reply.read().decode()

    def _renew(self) -> None:
        request = urllib.request.Request(
            f"{self.url}/latest/api/token",
            method="PUT",
            headers={"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_TTL_S)},
        )
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:
            self._token = reply.read().decode()
        self._token_until_s = self.monotonic() + TOKEN_TTL_S - _TOKEN_MARGIN_S


def _notice(kind: NoticeKind, instant: str) -> Notice:
    at = datetime.fromisoformat(instant.replace("Z", "+00:00"))
    return Notice(kind=kind, source=NoticeSource.IMDS, node_id="", at=at)
