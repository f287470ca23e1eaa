"""IMDSv2 on loopback for the worker process that stands for an instance."""

import json
import secrets
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(slots=True)
class Metadata:
    """What the service says; a test changes it at any time."""

    tags: dict[str, str] = field(default_factory=dict[str, str])
    interruption_at: datetime | None = None
    rebalance_at: datetime | None = None
    instance_id: str = "i-0"
    values: dict[str, str] = field(default_factory=dict[str, str])
    """By path under `meta-data/`: type, region, address, whatever else is asked."""
    failing: int = 0
    """So many of the next answers are 500."""
    tokens: set[str] = field(default_factory=set[str])
    url: str = ""

    def text(self, path: str) -> str | None:
        if path == "meta-data/spot/instance-action" and self.interruption_at:
            return json.dumps({"action": "terminate", "time": _instant(self.interruption_at)})
        if path == "meta-data/events/recommendations/rebalance" and self.rebalance_at:
            return json.dumps({"noticeTime": _instant(self.rebalance_at)})
        if path == "meta-data/instance-id":
            return self.instance_id
        if (value := self.values.get(path.removeprefix("meta-data/"))) is not None:
            return value
        return self.tags.get(path.removeprefix("meta-data/tags/instance/"))


@contextmanager
def imds_server(metadata: Metadata, listener: socket.socket | None = None) -> Generator[str]:
    """Serve until left; yields the URL, which `metadata.url` has too. `listener`: a socket of
    another network namespace, in place of a port here."""

    class Answer(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            token = secrets.token_hex(8)
            metadata.tokens.add(token)
            self._send(200, token)

        def do_GET(self) -> None:
            if metadata.failing > 0:
                metadata.failing -= 1
                self._send(500, "")
                return
            if self.headers.get("X-aws-ec2-metadata-token") not in metadata.tokens:
                self._send(401, "")
                return
            text = metadata.text(self.path.removeprefix("/latest/"))
            self._send(404 if text is None else 200, text or "")

        def _send(self, code: int, text: str) -> None:
            self.send_response(code)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer, bind_and_activate=listener is None)
    if listener is not None:
        server.socket.close()
        server.socket = listener
        server.server_address = listener.getsockname()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    metadata.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield metadata.url
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _instant(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
