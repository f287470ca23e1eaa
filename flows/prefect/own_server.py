"""A Prefect server for one command, where none is running: started at once, ended with us.

Prefect would start one by itself, but in our process group: a Ctrl-C at the terminal would end the
server first, and the flow run would wait for it through all of Prefect's retries. This one has a
session of its own, and starts while we import Prefect. Nothing here imports Prefect.
"""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

STARTS_WITHIN_S = 120.0
"""A new database on a busy machine takes 25 s."""
_ENDS_WITHIN_S = 5.0
_PROBE_S = 1.0
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LIGHT = {
    # As Prefect starts its own temporary server: no pages, and only the services that a flow run
    # needs (prefect 3.8.8, prefect.server.api.server.SubprocessASGIServer).
    "PREFECT_UI_ENABLED": "0",
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT__SERVER_FINAL": "1",
}


class ServerFailed(Exception):
    """The server did not come up; the message says where its log is."""


@contextmanager
def own_server(environment: Mapping[str, str], *, log: Path) -> Iterator[str]:
    """Start a server and give its API's address at once; `wait_for` says when it answers.

    It gets no signal of the terminal, and ends with this process, however that ends.
    """
    url = f"http://127.0.0.1:{_free_port()}/api"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            _command(url),
            env={**environment, **_LIGHT},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=_end_with_parent(),
        )
    try:
        yield url
    finally:
        process.terminate()
        try:
            process.wait(_ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(url: str, *, log: Path) -> None:
    """Until the server answers. Raises `ServerFailed`."""
    deadline_s = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < deadline_s:
        if answers(url, _PROBE_S):
            return
        time.sleep(0.1)
    raise ServerFailed(
        f"Prefect's own server did not answer within {STARTS_WITHIN_S:.0f} s; see {log}, or use "
        "--no-prefect"
    )


def answers(api_url: str, timeout_s: float) -> bool:
    """Whether a Prefect server, or somebody who refuses us, is there."""
    if not api_url:
        return False
    try:
        with urllib.request.urlopen(f"{api_url}/health", timeout=timeout_s):
            return True
    except urllib.error.HTTPError:
        return True  # somebody is there; whether we may talk is Prefect's to find out
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return False


def _command(url: str) -> list[str]:
    port = url.split(":")[2].split("/")[0]
    return [
        *(sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"),
        *("--host", "127.0.0.1", "--port", port, "--log-level", "error", "--lifespan", "on"),
    ]


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _end_with_parent() -> Callable[[], None]:
    """The library is loaded before the fork: a child of threads must not load one."""
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def in_child() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it was gone before we asked
            os._exit(1)

    return in_child
