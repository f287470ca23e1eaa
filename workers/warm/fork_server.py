"""A single-threaded process that forks itself on request, and tells how its children ended."""

import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from workers.owner_socket import ChannelError, receive, send
from workers.warm.fitness import ImportedWith, unfit_for_fork

Run = Callable[[dict[str, Any], list[int]], int]
"""What a child does with its request and its descriptors; returns its exit code."""


@dataclass(slots=True)
class ForkServer:
    """Serves `door` until `lifeline` closes. Its children live on.

    A request has what `surroundings` says; its first three descriptors become the child's standard
    streams, the others are handed to `run`. The reply has the child's `pid`, with a pidfd; its
    `exit` follows on the same connection. A request that cannot be served is answered by `refused`,
    and why.
    """

    door: socket.socket
    """Readable when a client waits."""
    next_client: Callable[[socket.socket], socket.socket]
    """Takes it from the door. Raises `ChannelError` for one that must not come in."""
    lifeline: int
    run: Run
    imported: ImportedWith
    _children: dict[int, socket.socket] = field(default_factory=dict[int, socket.socket])
    _wakeup: tuple[int, int] = (-1, -1)

    def serve(self) -> None:
        self._wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wakeup[1], warn_on_full_buffer=False)
        while True:
            ready, _, _ = select.select([self.door, self.lifeline, self._wakeup[0]], [], [])
            if self.lifeline in ready and not os.read(self.lifeline, 1):
                return
            if self._wakeup[0] in ready:
                os.read(self._wakeup[0], 1 << 12)
                self._reap()
            if self.door in ready:
                with suppress(ChannelError):
                    self._answer(self.next_client(self.door))

    def _answer(self, client: socket.socket) -> None:
        try:
            request, descriptors = receive(client)
        except ChannelError:
            client.close()
            raise
        try:
            if reason := unfit_for_fork(self.imported, request["environ"]):
                send(client, {"refused": reason})
                client.close()
            else:
                self._fork(client, request, descriptors)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _fork(self, client: socket.socket, request: dict[str, Any], descriptors: list[int]) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            self._become_child(client, request, descriptors)
        self._children[pid] = client
        handle = os.pidfd_open(pid)
        try:
            with suppress(ChannelError):  # who asked is gone; the child notices, and ends
                send(client, {"pid": pid}, [handle])
        finally:
            os.close(handle)

    def _become_child(
        self, client: socket.socket, request: dict[str, Any], descriptors: list[int]
    ) -> None:
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for end in {self.door, client, *self._children.values()}:
                end.close()
            for end in (self.lifeline, *self._wakeup):
                os.close(end)
            for number, stream in enumerate(descriptors[:3]):
                os.dup2(stream, number)
                os.close(stream)
            take_surroundings(request, self.imported)
            code = self.run(request, descriptors[3:])
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else int(bool(leaving.code))
        except BaseException:  # noqa: BLE001  the edge of a process: what rises is shown and ends it
            traceback.print_exc()
        finally:
            with suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if (client := self._children.pop(pid, None)) is not None:
                with suppress(ChannelError):
                    send(client, {"exit": os.waitstatus_to_exitcode(status)})
                client.close()


def surroundings() -> dict[str, Any]:
    """What a child that this process spawned would have from it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return {
        "environ": dict(os.environ),
        "directory": os.getcwd(),
        "cores": sorted(os.sched_getaffinity(0)),
        "mask": mask,
    }


def take_surroundings(request: Mapping[str, Any], imported: ImportedWith) -> None:
    """Be as a child that the process which asked has spawned, and that has imported everything."""
    os.environ.clear()
    os.environ.update({**imported.by_imports, **request["environ"]})
    os.chdir(request["directory"])
    os.umask(request["mask"])
    os.sched_setaffinity(0, request["cores"])
