"""`shunt` as a process of its own that was forked with its imports done: a start takes no CPU.

A real process: it leads a session, has its own directory, environment and streams, gets signals and
dies of them. Only Python and the imports are not its own, so what is about these, or about Prefect
(which imports more, and hooks into Python's own end), is started cold with `subprocess`.
"""

import atexit
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from multiprocessing.context import ForkServerContext
from pathlib import Path
from types import TracebackType
from typing import Any, Self


@cache
def _server() -> ForkServerContext:
    """One for the session. It ends with the process that asked it first."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["flows.cli"])
    return context


@cache
def _scratch() -> str:
    directory = tempfile.TemporaryDirectory(prefix="shunt-said-")
    atexit.register(directory.cleanup)
    return directory.name


class CommandProcess:
    """What the tests use of a `subprocess.Popen` with text pipes: what it has said is there at its
    end."""

    def __init__(
        self, arguments: tuple[str, ...], *, directory: Path, environment: Mapping[str, str]
    ) -> None:
        self.args = arguments
        self._said = tempfile.mkdtemp(dir=_scratch())
        self._process = _server().Process(
            target=_be_command, args=(arguments, str(directory), dict(environment), self._said)
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> Any:
        """None while it lives: the type is that which `Popen` gives it."""
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return self._process.exitcode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        self.wait(timeout)
        out, err = (Path(self._said, name).read_text() for name in ("out", "err"))
        return out, err

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.wait()


def _be_command(
    arguments: tuple[str, ...], directory: str, environment: dict[str, str], said: str
) -> None:
    """In the fork. Leaves as `shunt` does, by `SystemExit`."""
    os.setsid()
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, name in ((0, os.devnull), (1, f"{said}/out"), (2, f"{said}/err")):
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT, 0o600)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin, sys.stdout, sys.stderr = (
        open(number, mode, encoding="utf-8", closefd=False)  # noqa: SIM115  for this process's life
        for number, mode in ((0, "r"), (1, "w"), (2, "w"))
    )
    sys.argv = ["shunt", *arguments]
    from flows.cli import main

    main()
