"""A process that a worker owns beside itself and talks to over a socket of its own."""

import logging
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from workers.owner_socket import listen, private_directory

log = logging.getLogger(__name__)

_LEAVE_S = 5.0
"""From the end of its standard input until it is killed."""


@dataclass(slots=True)
class SideProcess:
    """`python -m MODULE FD ...`, one at a time, which ends with `close` or with this process: its
    standard input is a pipe of ours.

    The socket behind `FD` listens before the process lives, so who connects early waits for it.
    """

    name: str
    _directory: Path | None = None
    _process: "subprocess.Popen[bytes] | None" = None

    @property
    def door(self) -> Path:
        """Its socket: the same for one after another."""
        assert self._directory is not None, "start() first"
        return self._directory / self.name

    @property
    def pid(self) -> int:
        assert self._process is not None, "start() first"
        return self._process.pid

    def start(self, module: str, options: Sequence[str], environ: Mapping[str, str]) -> None:
        """Have one that lives: does nothing where the last one does."""
        if self._process is not None:
            if self._process.poll() is None:
                return
            code = self._process.returncode
            log.warning("%s process died exit=%d: another is started", self.name, code)
            self._end()
        if self._directory is None:
            self._directory = private_directory(f"shunt-{self.name}-")
        self.door.parent.mkdir(mode=0o700, exist_ok=True)
        self.door.unlink(missing_ok=True)
        with listen(self.door) as listener:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, str(listener.fileno()), *options],
                stdin=subprocess.PIPE,
                env=dict(environ),
                pass_fds=[listener.fileno()],
                # A signal to the worker's group is for the worker.
                start_new_session=True,
            )

    def close(self) -> None:
        """End it. Its children and its clients live on."""
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
