"""Notices: each thing is said once, whoever says it and how often."""

from datetime import UTC, datetime

from shunt.fleet.notice import Notice, NoticeBoard, NoticeKind, NoticeSource

AT = datetime(2026, 3, 1, tzinfo=UTC)


def said(kind: NoticeKind, source: NoticeSource = NoticeSource.IMDS, node: str = "i-1") -> Notice:
    return Notice(kind, source, node, AT)


def test_the_same_word_twice_or_from_two_sources_is_news_once() -> None:
    board = NoticeBoard()
    assert board.news(said(NoticeKind.INTERRUPTION))
    assert not board.news(said(NoticeKind.INTERRUPTION))
    assert not board.news(said(NoticeKind.INTERRUPTION, NoticeSource.SQS))
    assert board.news(said(NoticeKind.INTERRUPTION, node="i-2"))


def test_a_stronger_word_is_news_and_a_weaker_one_is_not() -> None:
    board = NoticeBoard()
    assert board.news(said(NoticeKind.REBALANCE))
    assert board.news(said(NoticeKind.INTERRUPTION))
    assert not board.news(said(NoticeKind.REBALANCE))
    assert board.news(said(NoticeKind.LOST, NoticeSource.HEARTBEAT))
