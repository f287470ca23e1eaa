"""A process that a warm one forked for us: not our child, but ours to watch and to end."""

import os
import signal
import socket
from collections.abc import Callable, Sequence
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
