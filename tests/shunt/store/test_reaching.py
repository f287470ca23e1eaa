"""A store that cannot be used is told in one sentence, within seconds, before anything starts."""

import http.server
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from shunt import keys
from shunt.store.config import StoreConfig, open_configured_store
from shunt.store.credentials import Credentials
from shunt.store.directory import DirectoryStore
from shunt.store.opening import open_store
from shunt.store.reaching import StoreUnusable, require_exclusive, require_reachable
from shunt.store.s3 import S3Access, S3Store
from shunt.testing.fault_proxy import ProxyFault, fault_proxy, in_order
from shunt.testing.memory_store import MemoryStore
from shunt.testing.s3_server import S3Server

pytestmark = pytest.mark.s3


def access(server: S3Server, **other: object) -> S3Access:
    known = S3Access(server.endpoint_url, server.region, server.credentials)
    return replace(known, **other)  # type: ignore[arg-type]


def why(store: S3Store) -> str:
    with pytest.raises(StoreUnusable) as told:
        require_reachable(store)
    message = str(told.value)
    assert message.startswith(f"{store.uri} cannot be used: ")
    assert "\n" not in message
    return message


def test_a_store_that_answers_is_let_through(s3: S3Server, tmp_path: Path) -> None:
    for store in (
        S3Store(s3.bucket, uuid.uuid4().hex, access=access(s3)),
        DirectoryStore(tmp_path),
    ):
        require_reachable(store)
        for _ in range(3):
            require_exclusive(store)
        assert list(store.list("")) == [keys.STORE_CHECK]


def test_a_bucket_that_is_not_there(s3: S3Server) -> None:
    told = why(S3Store("no-such-bucket", "team", access=access(s3)))
    assert f"there is no bucket no-such-bucket at {s3.endpoint_url}: create it" in told


def test_an_access_key_that_the_server_does_not_know(s3: S3Server) -> None:
    wrong = Credentials("nobody", "shunt-test-secret")
    told = why(S3Store(s3.bucket, access=access(s3, credentials=wrong)))
    assert "does not know the access key: check where the credentials come from" in told


def test_a_secret_that_is_not_of_the_key(s3: S3Server) -> None:
    wrong = Credentials(s3.credentials.access_key_id, "wrong")
    told = why(S3Store(s3.bucket, access=access(s3, credentials=wrong)))
    assert "the secret key does not belong to the access key" in told


@pytest.mark.parametrize(
    ("endpoint", "cause"),
    [
        ("http://no-such-host.invalid:9000", "there is no host no-such-host.invalid"),
        ("https://{host}", "does not speak TLS: write endpoint_url as http://{host}"),
    ],
)
def test_an_endpoint_that_is_wrong(s3: S3Server, endpoint: str, cause: str) -> None:
    host = s3.endpoint_url.removeprefix("http://")
    told = why(S3Store(s3.bucket, access=access(s3, endpoint_url=endpoint.format(host=host))))
    assert cause.format(host=host) in told


def test_a_port_at_which_nobody_listens(s3: S3Server) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        told = why(S3Store(s3.bucket, access=access(s3, endpoint_url=endpoint)))
    assert f"nothing listens at {endpoint}: check endpoint_url, and that the server runs" in told


def test_a_server_that_never_answers_is_given_up_within_seconds(s3: S3Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        endpoint = f"http://127.0.0.1:{mute.getsockname()[1]}"
        began_s = time.monotonic()
        told = why(S3Store(s3.bucket, access=access(s3, endpoint_url=endpoint)))
    assert f"{endpoint} does not answer within 1.5 s" in told
    assert time.monotonic() - began_s < 30  # 3 s on a quiet machine; retries took a minute


def test_a_server_that_is_not_s3(s3: S3Server) -> None:
    with _answering(404, {}) as endpoint:
        told = why(S3Store(s3.bucket, access=access(s3, endpoint_url=endpoint)))
    assert f"{endpoint} answers 404, but not as S3 does: check endpoint_url" in told


def test_a_bucket_of_another_region_is_named_with_its_region(s3: S3Server) -> None:
    """As S3 documents its answer: 301, and the region in a header."""
    with _answering(301, {"x-amz-bucket-region": "eu-west-3"}) as endpoint:
        told = why(S3Store(s3.bucket, access=access(s3, endpoint_url=endpoint)))
    assert "is in eu-west-3, not in us-east-1: set store.region to eu-west-3" in told


def test_a_throttle_is_no_reason_to_refuse(s3: S3Server) -> None:
    with fault_proxy(s3.endpoint_url) as proxy:
        proxy.choose = in_order([ProxyFault.SLOW_DOWN] * 2, method="GET")
        require_reachable(S3Store(s3.bucket, access=access(s3, endpoint_url=proxy.url)))


def test_a_server_that_overwrites_what_must_be_created_is_refused() -> None:
    class Careless(MemoryStore):
        def put_if_absent(self, key: str, data: bytes) -> bool:
            self.put(key, data)
            return True

    with pytest.raises(StoreUnusable, match="writes over an object that must only be created"):
        require_exclusive(Careless())


def test_a_profile_that_is_not_there(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    config = StoreConfig(uri=f"s3://{s3.bucket}/x", endpoint_url=s3.endpoint_url)
    with pytest.raises(StoreUnusable, match=r"profile \(nobody\) could not be found.*AWS_PROFILE"):
        require_reachable(open_configured_store(config, environment={}))


def test_every_write_names_the_key_of_kms(s3: S3Server, tmp_path: Path) -> None:
    """As a bucket policy may demand (S3 user guide, "Requiring server-side encryption")."""
    asked: list[dict[str, str]] = []
    file = tmp_path / "file"
    file.write_bytes(b"1")
    with _answering(200, {"etag": '"1"'}, asked) as endpoint:
        store = open_store(
            "s3://b/x", endpoint_url=endpoint, credentials=s3.credentials, kms_key_id="alias/team"
        )
        store.put("a", b"1")
        store.put_if_absent("a", b"1")
        store.put_file("a", file)
    assert len(asked) == 3
    for headers in asked:
        assert headers["x-amz-server-side-encryption"] == "aws:kms"
        assert headers["x-amz-server-side-encryption-aws-kms-key-id"] == "alias/team"


@contextmanager
def _answering(
    status: int, headers: dict[str, str], asked: list[dict[str, str]] | None = None
) -> Iterator[str]:
    """A server that says one thing to everybody; its address. `asked` gets each one's headers."""

    class Monotone(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            if asked is not None:
                asked.append({name.lower(): value for name, value in self.headers.items()})
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", "0")
            self.end_headers()

        do_HEAD = do_PUT = do_GET

        def log_message(self, format: str, *args: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Monotone)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
