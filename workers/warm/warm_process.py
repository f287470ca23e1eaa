"""The owner of a warm process: it starts one, starts another where it died, and ends it."""

import json
import logging
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from workers.owner_socket import connect, listen, private_directory
from workers.warm.popen import WarmContext
from workers.warm.preload import engine_variables

log = logging.getLogger(__name__)

_ANSWER_S = 120.0
"""A warm process that was just started imports first, on a busy machine for a minute."""
_LEAVE_S = 5.0


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
    _directory: Path | None = None
    _process: "subprocess.Popen[bytes] | None" = None

    @property
    def door(self) -> Path:
        """Its socket: the same for one after another."""
        assert self._directory is not None, "start() first"
        return self._directory / "warm"

    @property
    def pid(self) -> int:
        assert self._process is not None, "start() first"
        return self._process.pid

    def start(self) -> None:
        """Have one that lives: does nothing where the last one does."""
        if self._process is not None:
            if self._process.poll() is None:
                return
            log.warning("warm process died exit=%d: another is started", self._process.returncode)
            self._end()
        if self._directory is None:
            self._directory = private_directory("shunt-warm-")
        self.door.parent.mkdir(mode=0o700, exist_ok=True)
        self.door.unlink(missing_ok=True)
        added = engine_variables(self.environ)
        before = {name: self.environ.get(name) for name in added}
        with listen(self.door) as listener:
            command = [sys.executable, "-m", "workers.warm", str(listener.fileno())]
            command += ["--asked", json.dumps(before), "--import", ",".join(self.modules)]
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                env={**self.environ, **added},
                pass_fds=[listener.fileno()],
                # A signal to the worker's group is for the worker.
                start_new_session=True,
            )

    def context(self, cold: Callable[[str], None]) -> WarmContext:
        """Whose processes it forks; one that died is started again. `cold` is told of every process
        that had to be spawned."""
        self.start()
        return WarmDoor(self.door).context(cold)

    def close(self) -> None:
        """End it. Its children live on."""
        self._end()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def _end(self) -> None:
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(_LEAVE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
