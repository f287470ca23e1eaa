"""EC2's clock, by which launches, ends and prices are told, whatever this machine's clock says."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from shunt.aws.api import AwsApi

_TOLERANCE = timedelta(seconds=5)
"""Replies tell whole seconds, and take a while to come: less than this is no difference."""


@dataclass(slots=True)
class AwsClock:
    """Corrects a local clock by the `Date` of EC2's last reply."""

    local: Callable[[], datetime]
    offset: timedelta = timedelta(0)

    def now(self) -> datetime:
        return self.local() + self.offset

    def listen(self, api: AwsApi) -> None:
        """Take the offset from every reply to this client from now on."""
        api.client.meta.events.register("after-call", self._replied)

    def _replied(self, http_response: Any, **_: object) -> None:
        headers: Mapping[str, str] = getattr(http_response, "headers", {})
        told = headers.get("Date")
        if told is not None:
            offset = parsedate_to_datetime(told) - self.local()
            self.offset = offset if abs(offset) > _TOLERANCE else timedelta(0)
