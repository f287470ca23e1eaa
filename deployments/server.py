"""A Prefect server and a process worker of this machine, as child processes with one owner."""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
_HEALTH_TIMEOUT_S = 120.0
_END_TIMEOUT_S = 10.0
"""Prefect's worker has been seen to outlive its SIGTERM by a quarter of an hour."""


def server_environment(home: Path, port: int) -> dict[str, str]:
    """Settings of every process that belongs to this server."""
    return {
        **os.environ,
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PYTHONPATH": str(REPOSITORY),
    }


@contextmanager
def prefect_server(environment: Mapping[str, str], *, port: int, log: Path) -> Iterator[None]:
    """Serve until the block ends. Raises `TimeoutError` when the server does not come up."""
    argv = ["server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with _running([*_PREFECT, *argv], environment, log):
        _wait_until_healthy(f"http://127.0.0.1:{port}/api/health", log)
        yield


@contextmanager
def prefect_worker(environment: Mapping[str, str], *, pool: str, log: Path) -> Iterator[None]:
    """Run flow runs of the pool until the block ends."""
    argv = ["worker", "start", "--pool", pool, "--type", "process", "--name", "this-machine"]
    with _running([*_PREFECT, *argv], environment, log):
        yield


_PREFECT = (sys.executable, "-m", "prefect", "--no-prompt")


@contextmanager
def _running(argv: list[str], environment: Mapping[str, str], log: Path) -> Iterator[None]:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            argv, env=dict(environment), stdout=output, stderr=output, cwd=REPOSITORY
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_healthy(url: str, log: Path) -> None:
    deadline_s = time.monotonic() + _HEALTH_TIMEOUT_S
    while time.monotonic() < deadline_s:
        try:
            with urllib.request.urlopen(url, timeout=1.0):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
    raise TimeoutError(f"{url} did not answer within {_HEALTH_TIMEOUT_S:.0f} s; see {log}")
