"""The owner of a warm process: it starts one, starts another where it died, and ends it."""

import json
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from workers.owner_socket import connect
from workers.side_process import SideProcess
from workers.warm.popen import WarmContext
from workers.warm.preload import engine_variables

_ANSWER_S = 120.0
"""A warm process that was just started imports first, on a busy machine for a minute."""


class WarmSource(Protocol):
    """Where a worker's engine cores come from."""

    def context(self, cold: Callable[[str], None]) -> WarmContext: ...


@dataclass(frozen=True, slots=True)
class WarmDoor:
    """The warm process behind a socket, which another process of this node owns."""

    path: Path

    def dial(self) -> socket.socket:
        """A connection to the one that lives. Raises `ChannelError`."""
        return connect(self.path, timeout_s=_ANSWER_S)

    def context(self, cold: Callable[[str], None]) -> WarmContext:
        return WarmContext(self.dial, forks=True, cold=cold)


@dataclass(slots=True)
class WarmProcess:
    """One warm process at a time, which ends with `close` or with this process.

    `start` returns at once: the imports run beside whatever the caller does next, and who asks for
    a child meanwhile waits for them.
    """

    environ: Mapping[str, str]
    modules: Sequence[str] = ()
    """To be imported besides what every engine needs, as the class of the model."""
    _side: SideProcess = field(default_factory=lambda: SideProcess("warm"))

    @property
    def door(self) -> Path:
        return self._side.door

    @property
    def pid(self) -> int:
        return self._side.pid

    def start(self) -> None:
        """Have one that lives: does nothing where the last one does."""
        added = engine_variables(self.environ)
        before = {name: self.environ.get(name) for name in added}
        options = ["--asked", json.dumps(before), "--import", ",".join(self.modules)]
        self._side.start("workers.warm", options, {**self.environ, **added})

    def context(self, cold: Callable[[str], None]) -> WarmContext:
        """Whose processes it forks; one that died is started again. `cold` is told of every process
        that had to be spawned."""
        self.start()
        return WarmDoor(self.door).context(cold)

    def close(self) -> None:
        """End it. Its children live on."""
        self._side.close()
