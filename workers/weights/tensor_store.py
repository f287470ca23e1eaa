"""The owner of a tensor store, and what an engine says to one."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workers.owner_socket import connect, receive, send
from workers.side_process import SideProcess
from workers.weights.key import WeightsKey
from workers.weights.segment import Manifest, WeightsRefused

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
    _side: SideProcess = field(default_factory=lambda: SideProcess("weights"))

    @property
    def door(self) -> Path:
        return self._side.door

    @property
    def pid(self) -> int:
        return self._side.pid

    def start(self) -> None:
        """Have one that lives. One that died is replaced by an empty one."""
        options = ["--max-bytes", str(self.max_bytes)]
        self._side.start("workers.weights", options, self.environ)

    def close(self) -> None:
        self._side.close()
