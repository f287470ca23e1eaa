"""The S3 server of the tests never outlives them."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shunt.testing.processes import is_running

HOLD = """
import time
from shunt.testing import s3_server
with s3_server.s3_server() as server:
    print(server.endpoint_url, flush=True)
    time.sleep(600)
"""
DEADLINE_S = 20.0


def children(pid: int) -> list[int]:
    return [int(name) for name in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.s3
def test_it_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", HOLD],
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert parent.stdout is not None
    with parent, parent.stdout:
        try:
            assert parent.stdout.readline().startswith(b"http://127.0.0.1:")
            (server,) = children(parent.pid)
        finally:
            parent.kill()
    try:
        deadline = time.monotonic() + DEADLINE_S
        while is_running(server):
            assert time.monotonic() < deadline
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(server, signal.SIGKILL)
