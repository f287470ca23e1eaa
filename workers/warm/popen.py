"""Processes of multiprocessing that the warm process forks; spawned cold where it cannot."""

import io
import logging
import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import (
    forkserver,
    popen_forkserver,
    popen_spawn_posix,
    process,
    reduction,
    resource_tracker,
    spawn,
    util,
)
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext, SpawnProcess, set_spawning_popen
from typing import Any

from workers.owner_socket import ChannelError, receive, send
from workers.warm.fork_server import surroundings

log = logging.getLogger(__name__)

Dial = Callable[[], socket.socket]
"""Opens a connection to the warm process. Raises `ChannelError`."""
_EXIT_CODE_S = 1.0
"""From a child's end to the warm process's word about it, where that still lives."""
LOST = 255
"""Exit code of a child that ended after the warm process did: nobody knows its own."""


class ForkRefused(ChannelError):
    """The warm process lives, and may not be forked for this."""


class ForkedChild:
    """A child that a warm process forked for us: not our child, but ours to watch and to end."""

    def __init__(self, dial: Dial, request: dict[str, Any], descriptors: list[int]) -> None:
        """Raises `ForkRefused`, and `ChannelError` where nobody answers."""
        self._channel = dial()
        try:
            send(self._channel, surroundings() | request, [0, 1, 2, *descriptors])
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


class WarmPopen(popen_forkserver.Popen):
    """As multiprocessing's own for its fork server, whose descriptors' numbering it uses."""

    def __init__(self, process_obj: process.BaseProcess, dial: Dial, *, forks: bool) -> None:
        self._fds: list[int] = []
        self._dial = dial
        self._request = {"kind": "process", "forks": forks}
        super().__init__(process_obj)

    def _launch(self, process_obj: Any) -> None:
        preparation = spawn.get_preparation_data(process_obj._name)
        buffer = io.BytesIO()
        set_spawning_popen(self)
        try:
            reduction.dump(preparation, buffer)
            reduction.dump(process_obj, buffer)
        finally:
            set_spawning_popen(None)
        data, writer = os.pipe()
        try:
            descriptors = [data, resource_tracker.getfd(), *self._fds]
            self._child = ForkedChild(self._dial, self._request, descriptors)
        except BaseException:
            os.close(writer)
            raise
        finally:
            os.close(data)
        self.pid, self.sentinel = self._child.pid, self._child.sentinel
        # Its other end is the child's sentinel of this process.
        life = os.dup(writer)
        self.finalizer = util.Finalize(self, _close, (self._child, life))
        with suppress(BrokenPipeError), open(writer, "wb", closefd=True) as pipe:
            pipe.write(buffer.getbuffer())

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        if self.returncode is None:
            self.returncode = self._child.poll(0.0 if flag == os.WNOHANG else None)
        return self.returncode

    def _send_signal(self, sig: int) -> None:
        self._child.send_signal(sig)


def _close(child: ForkedChild, life: int) -> None:
    child.close()
    os.close(life)


class WarmContext(BaseContext):
    """A multiprocessing context whose processes are forked from the warm process behind `dial`.

    With `forks`, each of them may fork others in its turn (`workers.warm.nursery`). `cold` is told
    why, whenever one is spawned in the ordinary way instead.
    """

    # Named so because objects are handed over as to a spawned process, and not inherited.
    _name = "spawn"

    def __init__(self, dial: Dial, *, forks: bool, cold: Callable[[str], None]) -> None:
        super().__init__()

        def popen(process_obj: Any) -> Any:
            try:
                return WarmPopen(process_obj, dial, forks=forks)
            except ChannelError as error:
                log.warning("cold start process=%s: %s", process_obj.name, error)
                cold(str(error))
                return popen_spawn_posix.Popen(process_obj)

        class Process(SpawnProcess):
            _Popen = staticmethod(popen)

            def __reduce__(self) -> Any:
                # In the child it is an ordinary one: this class cannot be imported there.
                return _spawned, (self.__dict__.copy(),)

        self.Process = Process  # type: ignore[assignment]


def _spawned(state: dict[str, Any]) -> SpawnProcess:
    arrived = SpawnProcess.__new__(SpawnProcess)
    arrived.__dict__.update(state)
    return arrived


def run_process(descriptors: list[int]) -> int:
    """In the child: be the process of multiprocessing that comes over the first descriptor."""
    data, tracker, *inherited = descriptors
    setattr(resource_tracker._resource_tracker, "_fd", tracker)  # noqa: B010
    setattr(forkserver._forkserver, "_inherited_fds", inherited)  # noqa: B010
    return spawn._main(data, os.dup(data))  # type: ignore[attr-defined]
