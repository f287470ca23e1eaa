"""One TCP connection from each follower to the head: hello, then a heartbeat in both directions.

vLLM watches local processes only; its queues reconnect silently, and a head whose remote stage is
gone waits 300 s. A closed connection is noticed at once, a silent one after `SILENCE_LIMIT_S`.
"""

import json
import logging
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from workers.pipeline.checks import PipelineRefused

JOIN_DEADLINE_S = 300.0
"""Followers may boot and load for this long before the head gives up."""
LINK_BEAT_S = 1.0
SILENCE_LIMIT_S = 7.0
"""Below the 10 s in which a cut link must be noticed; above what a busy machine delays a beat."""
RETRY_S = 0.2
FINISHED = "finished"
_GOODBYE = b"q"
_HELLO_LIMIT_BYTES = 1024

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Hello:
    """What the head tells a follower of this launch."""

    token: str
    rendezvous_port: int


def accept_followers(
    address: tuple[str, int], hello: Hello, *, nodes: set[int], deadline_s: float
) -> list[socket.socket]:
    """Wait until each of `nodes` has connected; returns the connections.

    Raises TimeoutError at the deadline, and `PipelineRefused` where a node says that it cannot.
    """
    until = time.monotonic() + deadline_s
    links: list[socket.socket] = []
    missing = set(nodes)
    with socket.create_server(address, backlog=len(nodes) + 8) as server:
        while missing:
            server.settimeout(max(until - time.monotonic(), 0.01))
            try:
                connection, peer = server.accept()
            except TimeoutError as error:
                for link in links:
                    link.close()
                raise TimeoutError(
                    f"nodes {sorted(missing)} did not join within {deadline_s:g} s"
                ) from error
            node, reason = _greeting(connection)
            if node in missing and reason:
                for link in (connection, *links):
                    link.close()
                raise PipelineRefused(f"node {node} cannot join: {reason}")
            if node is None or node not in missing:
                log.warning("link refused peer=%s node=%s", peer[0], node)
                connection.close()
                continue
            connection.sendall(json.dumps([hello.token, hello.rendezvous_port]).encode() + b"\n")
            missing.discard(node)
            links.append(connection)
    return links


def join_head(
    address: tuple[str, int], node: int, *, deadline_s: float
) -> tuple[socket.socket, Hello]:
    """Connect to the head, which may not be there yet. Raises `PipelineRefused` at the deadline."""
    until = time.monotonic() + deadline_s
    while True:
        with suppress(OSError):
            link = socket.create_connection(address, timeout=SILENCE_LIMIT_S)
            link.sendall(f"{node}\n".encode())
            if line := _line(link):
                return link, Hello(*json.loads(line))
            link.close()
        _wait_to_retry(address, node, until)


def refuse_head(address: tuple[str, int], node: int, reason: str, *, deadline_s: float) -> None:
    """Tell the head that this node does not come, so that it does not wait for it.

    Raises `PipelineRefused` where no head is there to be told.
    """
    until = time.monotonic() + deadline_s
    line = f"{node} {' '.join(reason.split())}"[: _HELLO_LIMIT_BYTES - 1]
    while True:
        with suppress(OSError), socket.create_connection(address, timeout=SILENCE_LIMIT_S) as link:
            link.sendall(f"{line}\n".encode())
            return
        _wait_to_retry(address, node, until)


def _wait_to_retry(address: tuple[str, int], node: int, until: float) -> None:
    if time.monotonic() > until:
        raise PipelineRefused(f"node {node}: no head at {address[0]}:{address[1]} in time")
    time.sleep(RETRY_S)


def keep_alive(link: socket.socket, on_lost: Callable[[str], None]) -> None:
    """Beat and listen in threads of their own; `on_lost` is called with the reason.

    The reason is `FINISHED` where the other side ended the engine on purpose.
    """
    link.settimeout(SILENCE_LIMIT_S)
    lost = threading.Event()

    def listen() -> None:
        reason = _wait_for_end(link)
        lost.set()
        on_lost(reason)

    def beat() -> None:
        while not lost.wait(LINK_BEAT_S):
            try:
                link.sendall(b".")
            except OSError:
                return  # whoever listens learns of it, too

    for target in (beat, listen):
        name = f"pipeline-link-{target.__name__}"
        threading.Thread(target=target, name=name, daemon=True).start()


def _wait_for_end(link: socket.socket) -> str:
    try:
        while data := link.recv(64):
            if _GOODBYE in data:
                return FINISHED
    except TimeoutError:
        return f"the link was silent for {SILENCE_LIMIT_S:g} s"
    except OSError as error:
        return f"the link broke: {error}"
    return "the link was closed"


def say_goodbye(link: socket.socket) -> None:
    """End a link on purpose."""
    with suppress(OSError):
        link.sendall(_GOODBYE)
        link.shutdown(socket.SHUT_RDWR)
    link.close()


def _greeting(connection: socket.socket) -> tuple[int | None, str]:
    """The node that speaks, and why it cannot join."""
    connection.settimeout(SILENCE_LIMIT_S)
    try:
        number, _, reason = _line(connection).partition(b" ")
    except OSError:
        return None, ""
    return (int(number) if number.isdigit() else None), reason.decode(errors="replace")


def _line(connection: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        byte = connection.recv(1)
        if not byte or len(line) > _HELLO_LIMIT_BYTES:
            return b""
        line += byte
    return line.strip()
