"""A fork server that a forked process keeps for its own children: an engine core for its ranks.

It is forked first thing, while the process is still as clean as the warm one, and belongs to it
like a child that it had spawned: in its session, and dead with it. So whatever ends an engine core
and all it started ends the ranks, too, and the warm process is not needed for that.
"""

import ctypes
import os
import signal
import socket
import sys
from dataclasses import dataclass

from workers.owner_socket import ChannelError, receive, send
from workers.warm.fitness import ImportedWith
from workers.warm.fork_server import ForkServer, Run
from workers.warm.popen import WarmContext

_PR_SET_PDEATHSIG = 1
"""prctl(2)."""


def open_nursery(imported: ImportedWith, run: Run) -> None:
    """Fork the nursery of this process, and have vLLM's executor start its ranks there."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    lifeline, _held = os.pipe()
    if os.fork() == 0:
        try:
            ours.close()
            os.close(_held)
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            ForkServer(its, _hand_in, lifeline, run, imported).serve()
        finally:
            os._exit(0)
    its.close()
    os.close(lifeline)
    if "vllm" in sys.modules:
        # Where the warm process could not import it, nothing of it is to be replaced.
        from workers.engine.private.processes import start_ranks_by

        start_ranks_by(WarmContext(_Dial(ours), forks=False, cold=lambda _: None))


def _hand_in(door: socket.socket) -> socket.socket:
    """A client of a nursery comes as a descriptor through the one connection that it has."""
    _, descriptors = receive(door)
    if len(descriptors) != 1:
        raise ChannelError(f"{len(descriptors)} descriptors came in place of a client")
    return socket.socket(fileno=descriptors[0])


@dataclass(frozen=True, slots=True)
class _Dial:
    control: socket.socket

    def __call__(self) -> socket.socket:
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with its:
            send(self.control, {}, [its.fileno()])
        return ours
