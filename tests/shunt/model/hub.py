"""A double of the hub on loopback: listing, redirect to a signed address, ranges, tokens."""

import hashlib
import json
import threading
import time
import urllib.parse
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "4f5c" * 10


@dataclass(slots=True)
class Hub:
    """What it serves and what it was asked; a test changes it at any time."""

    files: dict[str, bytes]
    token: str = ""
    """Needed for everything, where it is set."""
    model_id: str = "team/tiny"
    url: str = ""
    storage_url: str = ""
    asked: list[str] = field(default_factory=list[str])
    told_storage: list[str] = field(default_factory=list[str])
    """Authorization headers that the storage service was given."""
    stale_after: int | None = None
    """Signed addresses are refused after so many uses, each."""
    failures: int = 0
    """So many of the next answers are 503."""
    commit: str = COMMIT
    delay_s: float = 0.0
    """Of each range, so that a second reader comes meanwhile."""
    listed: dict[str, bytes] = field(default_factory=dict[str, bytes])
    """Bytes by which the listing describes a file, where others are served."""
    ranges: list[tuple[str, int, int]] = field(default_factory=list[tuple[str, int, int]])

    @property
    def api(self) -> str:
        return f"/api/models/{self.model_id}/revision"

    def named(self, path: str) -> str | None:
        """The file that a path of bytes names; None for any other path."""
        prefix = f"/{self.model_id}/resolve/{self.commit}/"
        name = urllib.parse.unquote(path.removeprefix(prefix))
        return name if path.startswith(prefix) and name in self.files else None

    def listing(self) -> bytes:
        siblings = [_sibling(n, self.listed.get(n, data)) for n, data in self.files.items()]
        return json.dumps({"sha": self.commit, "siblings": siblings}).encode()


def _sibling(name: str, data: bytes) -> dict[str, object]:
    blob = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
    found: dict[str, object] = {"rfilename": name, "size": len(data), "blobId": blob}
    if name.endswith(".safetensors"):
        found["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    return found


@contextmanager
def hub_double(files: dict[str, bytes]) -> Generator[Hub]:
    """Two servers: the hub, and the storage that it points to (another host, as on the net)."""
    hub = Hub(files)
    with _serving(_front_of(hub)) as hub.url, _serving(_storage_of(hub)) as hub.storage_url:
        yield hub


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _send(self, code: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


def _front_of(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Front(_Answer):
        def do_GET(self) -> None:
            path = urllib.parse.urlsplit(self.path).path
            hub.asked.append(path)
            if hub.failures > 0:
                hub.failures -= 1
                self._send(503)
            elif hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
                self._send(401)
            elif path in [f"{hub.api}/{known}" for known in ("main", hub.commit)]:
                self._send(200, hub.listing())
            elif (name := hub.named(path)) is not None:
                location = f"{hub.storage_url}/{urllib.parse.quote(name)}?s={len(hub.asked)}"
                self._send(302, Location=location)
            else:
                self._send(404)

    return Front


def _storage_of(hub: Hub) -> type[BaseHTTPRequestHandler]:
    uses: dict[str, int] = {}

    class Storage(_Answer):
        def do_GET(self) -> None:
            parts = urllib.parse.urlsplit(self.path)
            if told := self.headers.get("Authorization"):
                hub.told_storage.append(told)
            uses[parts.query] = uses.get(parts.query, 0) + 1
            if hub.stale_after is not None and uses[parts.query] > hub.stale_after:
                self._send(403)
                return
            name = urllib.parse.unquote(parts.path[1:])
            first, last = (int(n) for n in self.headers["Range"].split("=")[1].split("-"))
            time.sleep(hub.delay_s)
            hub.ranges.append((name, first, last + 1))
            self._send(206, hub.files[name][first : last + 1])

    return Storage


@contextmanager
def _serving(answer: type[BaseHTTPRequestHandler]) -> Generator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), answer)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
