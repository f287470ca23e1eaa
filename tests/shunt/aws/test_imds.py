"""Instance metadata: version 2 only, notices in one form, a token that may be lost."""

from datetime import UTC, datetime

import pytest

from shunt.aws.imds import POLL_S, TIMEOUT_S, Imds
from shunt.fleet.notice import NoticeKind
from shunt.testing.ec2.imds_server import Metadata, imds_server

AT = datetime(2026, 3, 1, 12, 0, 30, tzinfo=UTC)


def test_quiet_told_and_withdrawn() -> None:
    metadata = Metadata(tags={"shunt:run": "r1"})
    with imds_server(metadata) as url:
        imds = Imds(url)
        assert imds.notices() == []
        assert imds.tag("shunt:run") == "r1"
        metadata.rebalance_at = AT
        metadata.interruption_at = AT
        first, second = imds.notices()
        assert (first.kind, first.at) == (NoticeKind.INTERRUPTION, AT)
        assert second.kind is NoticeKind.REBALANCE
        metadata.interruption_at = None
        assert [n.kind for n in imds.notices()] == [NoticeKind.REBALANCE]


def test_a_refused_token_is_renewed_once() -> None:
    metadata = Metadata()
    with imds_server(metadata) as url:
        imds = Imds(url)
        assert imds.get("meta-data/instance-id") == "i-0"
        metadata.tokens.clear()
        assert imds.get("meta-data/instance-id") == "i-0"
        assert len(metadata.tokens) == 1


def test_no_service_is_an_os_error() -> None:
    with pytest.raises(OSError, match="refused"):
        Imds("http://127.0.0.1:9").notices()


def test_a_notice_is_seen_within_five_seconds() -> None:
    """The worst case: just after a poll, then one request for the action that almost times out."""
    assert POLL_S + TIMEOUT_S < 5
