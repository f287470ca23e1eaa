"""The owner of a tensor store, and what an engine says to one."""

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workers.owner_socket import connect, listen, private_directory, receive, send
from workers.weights.key import WeightsKey
from workers.weights.segment import Manifest, WeightsRefused

log = logging.getLogger(__name__)

_LEAVE_S = 5.0
_ANSWER_S = 1800.0
"""The first question for a model's content reads all of it."""

Mapped = dict[str, tuple[Manifest, int]]
"""By group: what is in it, and its memory file, the caller's to close."""


class StoreClient:
    """A lease on a store: what was attached over it is kept while it is open."""

    def __init__(self, door: Path) -> None:
        """Raises `ChannelError` where no store answers."""
        self._channel = connect(door, timeout_s=_ANSWER_S)

    def content(self, directory: str) -> str:
        """Digest of a model's bytes. Raises `WeightsRefused` for a file that is cut or missing."""
        return str(self._ask({"verb": "content", "directory": directory})[0]["content"])

    def attach(self, key: WeightsKey, groups: Sequence[str]) -> Mapped:
        """Those of the groups that are there."""
        found: Mapped = {}
        for first in range(0, len(groups), _GROUPS_A_CALL):
            asked = list(groups[first : first + _GROUPS_A_CALL])
            found |= self._mapped({"verb": "attach", "key": key.name, "groups": asked})
        return found

    def publish(self, key: WeightsKey, group: str, descriptor: int, manifest: Manifest) -> Mapped:
        """Offer a group; what comes back is to be mapped, by whomever it was made."""
        request = {"verb": "publish", "key": key.name, "group": group, "manifest": manifest}
        return self._mapped(request, [descriptor])

    def stat(self) -> dict[str, Any]:
        """`sets`: groups by key; `num_bytes` kept; `leases` by key."""
        return self._ask({"verb": "stat"})[0]

    def close(self) -> None:
        self._channel.close()

    def _mapped(self, request: dict[str, Any], descriptors: Sequence[int] = ()) -> Mapped:
        reply, kept = self._ask(request, descriptors)
        manifests: dict[str, Manifest] = reply["groups"]
        if len(kept) != len(manifests):
            for descriptor in kept:
                os.close(descriptor)
            raise WeightsRefused(f"{len(manifests)} groups came in {len(kept)} memory files")
        return {name: (manifests[name], kept[i]) for i, name in enumerate(manifests)}

    def _ask(
        self, request: dict[str, Any], descriptors: Sequence[int] = ()
    ) -> tuple[dict[str, Any], list[int]]:
        send(self._channel, request, descriptors)
        reply, kept = receive(self._channel)
        if "refused" in reply:
            raise WeightsRefused(str(reply["refused"]))
        return reply, kept


_GROUPS_A_CALL = 200
"""Each comes as a descriptor, of which a message carries 253."""


@dataclass(slots=True)
class TensorStore:
    """One store at a time, which ends with `close` or with this process; engines then go on."""

    environ: Mapping[str, str]
    max_bytes: int = 0
    _directory: Path | None = None
    _process: "subprocess.Popen[bytes] | None" = None

    @property
    def door(self) -> Path:
        """Its socket: the same for one after another."""
        assert self._directory is not None, "start() first"
        return self._directory / "store"

    @property
    def pid(self) -> int:
        assert self._process is not None, "start() first"
        return self._process.pid

    def start(self) -> None:
        """Have one that lives. One that died is replaced by an empty one."""
        if self._process is not None:
            if self._process.poll() is None:
                return
            log.warning("tensor store died exit=%d: another is started", self._process.returncode)
            self._end()
        if self._directory is None:
            self._directory = private_directory("shunt-store-")
        self.door.parent.mkdir(mode=0o700, exist_ok=True)
        self.door.unlink(missing_ok=True)
        with listen(self.door) as listener:
            command = [sys.executable, "-m", "workers.weights", str(listener.fileno())]
            command += ["--max-bytes", str(self.max_bytes)]
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                env=dict(self.environ),
                pass_fds=[listener.fileno()],
                start_new_session=True,
            )

    def close(self) -> None:
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
