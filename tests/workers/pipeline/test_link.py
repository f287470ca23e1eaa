"""The link between nodes: joined, alive, lost, silent, ended on purpose."""

import queue
import socket
import threading
from collections.abc import Generator

import pytest

from workers.pipeline import link as links
from workers.pipeline.checks import PipelineRefused
from workers.pipeline.link import FINISHED, Hello, accept_followers, join_head, keep_alive

HELLO = Hello("0abcd", 29650)


@pytest.fixture
def pair() -> Generator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair()
    yield left, right
    left.close()
    right.close()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def test_followers_join_a_head_that_comes_later() -> None:
    address = ("127.0.0.1", _free_port())
    joined: queue.Queue[tuple[socket.socket, Hello]] = queue.Queue()

    def join(node: int) -> None:
        joined.put(join_head(address, node, deadline_s=10))

    for node in (2, 1):
        threading.Thread(target=join, args=(node,), daemon=True).start()
    accepted = accept_followers(address, HELLO, nodes={1, 2}, deadline_s=10)
    followers = [joined.get(timeout=10) for _ in accepted]
    assert [hello for _, hello in followers] == [HELLO, HELLO]
    for connection in (*accepted, *(link for link, _ in followers)):
        connection.close()


def test_a_missing_follower_is_named_at_the_deadline() -> None:
    with pytest.raises(TimeoutError, match=r"nodes \[1\] did not join"):
        accept_followers(("127.0.0.1", _free_port()), HELLO, nodes={1}, deadline_s=0.1)


def test_a_node_that_cannot_join_ends_the_wait_with_its_reason() -> None:
    address = ("127.0.0.1", _free_port())

    def refuse() -> None:
        links.refuse_head(address, 2, "stage 1 has\nno memory left", deadline_s=10)

    threading.Thread(target=refuse, daemon=True).start()
    with pytest.raises(PipelineRefused, match="node 2 cannot join: stage 1 has no memory left"):
        accept_followers(address, HELLO, nodes={1, 2}, deadline_s=10)


def test_a_missing_head_ends_the_follower_at_the_deadline() -> None:
    with pytest.raises(PipelineRefused, match="node 1: no head at"):
        join_head(("127.0.0.1", _free_port()), 1, deadline_s=0.1)


def test_a_closed_link_is_lost_at_once(pair: tuple[socket.socket, socket.socket]) -> None:
    lost: queue.Queue[str] = queue.Queue()
    keep_alive(pair[0], lost.put)
    pair[1].close()
    assert lost.get(timeout=1) == "the link was closed"


def test_a_silent_link_is_lost_at_the_limit(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "SILENCE_LIMIT_S", 0.3)
    lost: queue.Queue[str] = queue.Queue()
    keep_alive(pair[0], lost.put)
    assert "silent" in lost.get(timeout=2)


def test_a_goodbye_is_no_loss(pair: tuple[socket.socket, socket.socket]) -> None:
    lost: queue.Queue[str] = queue.Queue()
    keep_alive(pair[0], lost.put)
    links.say_goodbye(pair[1])
    assert lost.get(timeout=1) == FINISHED


def test_beats_keep_both_sides_alive(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "SILENCE_LIMIT_S", 0.5)
    monkeypatch.setattr(links, "LINK_BEAT_S", 0.05)
    lost: queue.Queue[str] = queue.Queue()
    for side in pair:
        keep_alive(side, lost.put)
    with pytest.raises(queue.Empty):
        lost.get(timeout=1.5)
