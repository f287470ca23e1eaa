"""An HTTP proxy in front of an S3 endpoint that misbehaves on cue. It listens on loopback only.

Requests go through unchanged, `Host` included, so their signatures stay valid.
"""

import random
import select
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_UPSTREAM_TIMEOUT_S = 120.0
_HOP_HEADERS = {"connection", "keep-alive", "transfer-encoding"}
_CREATE_HEADER = "if-none-match"
_DENIED = "403 AccessDenied"
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER on, zero seconds: close sends RST."""


class ProxyFault(StrEnum):
    """What happens to a request instead of its answer."""

    SLOW_DOWN = "503 SlowDown"
    INTERNAL_ERROR = "500 InternalError"
    TOO_MANY_REQUESTS = "429 TooManyRequests"
    CONFLICT = "409 ConditionalRequestConflict"
    """Only to create-if-absent puts: no other request of ours has a 409."""
    RESET = "reset before the request is forwarded"
    REPLY_LOST = "request forwarded, reply dropped, connection reset"
    TRUNCATED = "request forwarded, half of the reply's body sent"
    TIMEOUT = "never answered"


TRANSIENT_FAULTS = tuple(fault for fault in ProxyFault if fault is not ProxyFault.TIMEOUT)
"""All but the one that costs the client its whole time limit."""


@dataclass(frozen=True, slots=True)
class ProxiedRequest:
    """A request as the proxy sees it. Numbers count from 0."""

    number: int
    method: str
    path: str
    creates: bool
    """Whether it is a put with `If-None-Match: *`."""


ChooseProxyFault = Callable[[ProxiedRequest], ProxyFault | None]


def no_proxy_fault(_request: ProxiedRequest) -> ProxyFault | None:
    return None


def at_random(
    probability: float, *, rng: random.Random, faults: Sequence[ProxyFault] = TRANSIENT_FAULTS
) -> ChooseProxyFault:
    """Each request fails with this probability, in one of these ways."""

    def choose(request: ProxiedRequest) -> ProxyFault | None:
        if rng.random() >= probability:
            return None
        usable = [f for f in faults if request.creates or f is not ProxyFault.CONFLICT]
        return rng.choice(usable)

    return choose


def in_order(faults: Iterable[ProxyFault | None], *, method: str = "PUT") -> ChooseProxyFault:
    """The first requests of this method get these, one each; all others pass."""
    script = iter(faults)

    def choose(request: ProxiedRequest) -> ProxyFault | None:
        return next(script, None) if request.method == method else None

    return choose


class FaultProxy:
    """A running proxy. `choose` may be replaced at any time."""

    def __init__(self, upstream_url: str, choose: ChooseProxyFault) -> None:
        parts = urlsplit(upstream_url)
        assert parts.scheme == "http", "upstream_url is http://host:port"
        self.upstream = (parts.hostname or "127.0.0.1", parts.port)
        self.choose = choose
        self.counts: Counter[str] = Counter()
        """Requests by what happened to them: a fault's text, or "passed"."""
        self.hides_missing = False
        """Answer 403 in place of 404, as S3 does to callers who may not list the bucket."""
        self.url = ""
        self.closing = threading.Event()
        self._lock = threading.Lock()
        self._number = 0

    def next_fault(self, method: str, path: str, *, creates: bool) -> ProxyFault | None:
        with self._lock:
            request = ProxiedRequest(self._number, method, path, creates)
            self._number += 1
            fault = self.choose(request)
            self.counts[fault or "passed"] += 1
            return fault


@contextmanager
def fault_proxy(
    upstream_url: str, choose: ChooseProxyFault = no_proxy_fault
) -> Generator[FaultProxy]:
    """Run a proxy on a free loopback port until the block ends."""
    proxy = FaultProxy(upstream_url, choose)

    class Connection(_ProxyConnection):
        owner = proxy

    server = ThreadingHTTPServer(("127.0.0.1", 0), Connection)
    server.daemon_threads = True
    proxy.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _ProxyConnection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    owner: FaultProxy

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: `FaultProxy.counts` has it."""

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        creates = self.command == "PUT" and _CREATE_HEADER in self.headers
        fault = self.owner.next_fault(self.command, self.path, creates=creates)
        match fault:
            case None | ProxyFault.REPLY_LOST | ProxyFault.TRUNCATED:
                self._forward(body, fault)
            case ProxyFault.RESET:
                self._reset()
            case ProxyFault.TIMEOUT:
                self._wait_for_client_to_leave()
            case _:
                self._refuse(fault)

    def _forward(self, body: bytes, fault: ProxyFault | None) -> None:
        upstream = HTTPConnection(*self.owner.upstream, timeout=_UPSTREAM_TIMEOUT_S)
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                upstream.putheader(name, value)
            upstream.endheaders(body)
            answer = upstream.getresponse()
            content = answer.read()
        except (OSError, HTTPException):
            return self._reset()
        finally:
            upstream.close()
        if fault is ProxyFault.REPLY_LOST:
            return self._reset()
        if self.owner.hides_missing and answer.status == HTTPStatus.NOT_FOUND:
            return self._refuse(_DENIED)
        self._answer(answer, content, truncated=fault is ProxyFault.TRUNCATED)

    def _answer(self, answer: HTTPResponse, content: bytes, *, truncated: bool) -> None:
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in _HOP_HEADERS | {"content-length"}:
                self.send_header(name, value)
        length = answer.getheader("content-length") if self.command == "HEAD" else None
        self.send_header("Content-Length", length or str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if truncated else content)
        if truncated:
            self._reset()

    def _refuse(self, answer: str) -> None:
        status, code = answer.split()
        content = f"<Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
        self.send_response_only(int(status))
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _reset(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)

    def _wait_for_client_to_leave(self) -> None:
        while not self.owner.closing.is_set():
            readable, _, _ = select.select([self.connection], [], [], 0.05)
            if readable:
                break  # the client closed: it sends nothing more while it waits for an answer
        self._reset()
