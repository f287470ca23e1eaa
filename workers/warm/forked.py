"""A process that a warm one forked for us: not our child, but ours to watch and to end."""

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from typing import Any

from workers.owner_socket import ChannelError, receive, send
from workers.warm.fork_server import surroundings

Dial = Callable[[], socket.socket]
"""Opens a connection to the warm process. Raises `ChannelError`."""
_EXIT_CODE_S = 1.0
"""From a child's end to the warm process's word about it, where that still lives."""
LOST = 255
"""Exit code of a child that ended after the warm process did: nobody knows its own."""


class ForkRefused(ChannelError):
    """The warm process lives, and may not be forked for this."""


class ForkedChild:
    """One such process, and the connection over which its exit code comes."""

    def __init__(self, dial: Dial, request: dict[str, Any], descriptors: Sequence[int]) -> None:
        """The first three descriptors are its standard streams. Raises `ForkRefused`, and
        `ChannelError` where nobody answers."""
        self._channel = dial()
        try:
            send(self._channel, surroundings() | request, descriptors)
            reply, handles = receive(self._channel)
        except BaseException:
            self._channel.close()
            raise
        if "pid" not in reply or len(handles) != 1:
            self._channel.close()
            raise ForkRefused(str(reply.get("refused", "an answer without a process")))
        self.pid: int = reply["pid"]
        self.sentinel = handles[0]
        """A pidfd: ready when the process has ended, whatever became of the warm one."""
        self._code: int | None = None

    def poll(self, timeout_s: float | None = 0.0) -> int | None:
        """Its exit code once it has ended; negative: the signal."""
        if self._code is None and wait([self.sentinel], timeout_s):
            self._code = self._told()
        return self._code

    def _told(self) -> int:
        self._channel.settimeout(_EXIT_CODE_S)
        with suppress(ChannelError):
            return int(receive(self._channel)[0]["exit"])
        return LOST

    def send_signal(self, number: int) -> None:
        """To this process and to no later one of its pid; nothing where it has ended."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.sentinel, number)

    def close(self) -> None:
        self._channel.close()
        with suppress(OSError):
            os.close(self.sentinel)


class ForkedModule:
    """`python -m MODULE ARGUMENTS` as a fork, with what we use of `subprocess.Popen`.

    Its stdin is a pipe that we hold, its other streams are ours.
    """

    def __init__(
        self, dial: Dial, module: str, arguments: Sequence[str], environ: Mapping[str, str]
    ) -> None:
        """Raises `ChannelError` where the warm process does not give one."""
        request = {
            "kind": "module",
            "forks": True,
            "module": f"{module}.__main__",
            "arguments": list(arguments),
            "environ": dict(environ),
        }
        source, held = os.pipe()
        try:
            self._child = ForkedChild(dial, request, [source, 1, 2])
        except BaseException:
            os.close(held)
            raise
        finally:
            os.close(source)
        self.stdin = open(held, "wb", closefd=True)  # noqa: SIM115  closed by whoever owns us
        self.pid = self._child.pid

    def poll(self) -> int | None:
        return self._child.poll()

    def wait(self, timeout: float | None = None) -> int:
        """Raises `subprocess.TimeoutExpired`, as `Popen` does."""
        code = self._child.poll(timeout)
        if code is None:
            assert timeout is not None, "without one the wait is for ever"
            raise subprocess.TimeoutExpired("forked module", timeout)
        return code

    def terminate(self) -> None:
        self._child.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self._child.send_signal(signal.SIGKILL)
