"""The tensor store's process: it keeps memory files, and hands them to who has the same key.

It knows no vLLM and no torch: the first engine that has cut and fused a layer publishes it, and
every later one maps it. A connection is a lease: it ends with the engine, however that ends.
"""

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workers.owner_socket import ChannelError, accept, receive, send
from workers.weights.content import ContentDigests
from workers.weights.segment import Manifest, WeightsRefused, check

_CALL_S = 24 * 3600.0
"""A lease is silent for as long as its engine serves."""


@dataclass(frozen=True, slots=True)
class _Group:
    descriptor: int
    manifest: Manifest


@dataclass(slots=True)
class Keeper:
    """Serves each client in a thread of its own, until the process ends."""

    listener: socket.socket
    max_bytes: int = 0
    """Shard sets that nobody leases go, the one longest unused first, while more is kept; 0: no
    limit."""
    _sets: dict[str, dict[str, _Group]] = field(default_factory=dict[str, dict[str, _Group]])
    """By key, least recently used first; then by group."""
    _leases: dict[str, int] = field(default_factory=dict[str, int])
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _digests: ContentDigests = field(default_factory=ContentDigests)

    def serve(self) -> None:
        while True:
            with suppress(ChannelError):
                client = accept(self.listener, timeout_s=_CALL_S)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        leased: set[str] = set()
        verbs: dict[str, Callable[..., tuple[dict[str, Any], list[int]]]] = {
            "content": self._content,
            "attach": self._attach,
            "publish": self._publish,
            "stat": self._stat,
        }
        with client, suppress(ChannelError):
            try:
                while True:
                    request, descriptors = receive(client)
                    self._answer(client, verbs, request, descriptors, leased)
            finally:
                with self._lock:
                    for key in leased:
                        self._leases[key] -= 1
                    self._evict()

    def _answer(
        self,
        client: socket.socket,
        verbs: dict[str, Callable[..., tuple[dict[str, Any], list[int]]]],
        request: dict[str, Any],
        descriptors: list[int],
        leased: set[str],
    ) -> None:
        try:
            if (key := request.get("key")) is not None and key not in leased:
                with self._lock:
                    self._leases[key] = self._leases.get(key, 0) + 1
                leased.add(key)
            verb = request.pop("verb")
            reply, kept = verbs[verb](**request, descriptors=descriptors)
        except (WeightsRefused, OSError, KeyError, TypeError) as error:
            reply, kept = {"refused": f"{type(error).__name__}: {error}"}, []
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        send(client, reply, kept)

    def _content(self, directory: str, descriptors: list[int]) -> tuple[dict[str, Any], list[int]]:
        del descriptors
        return {"content": self._digests.of_model(Path(directory))}, []

    def _attach(
        self, key: str, groups: list[str], descriptors: list[int]
    ) -> tuple[dict[str, Any], list[int]]:
        del descriptors
        with self._lock:
            there = self._sets.get(key, {})
            if key in self._sets:
                self._sets[key] = self._sets.pop(key)
            found = [name for name in groups if name in there]
            manifests = {name: there[name].manifest for name in found}
            return {"groups": manifests}, [there[name].descriptor for name in found]

    def _publish(
        self, key: str, group: str, manifest: Manifest, descriptors: list[int]
    ) -> tuple[dict[str, Any], list[int]]:
        """Of several who publish the same group one wins, and all map what the winner made."""
        (descriptor,) = descriptors
        check(descriptor, manifest)
        with self._lock:
            groups = self._sets.setdefault(key, {})
            if group not in groups:
                groups[group] = _Group(os.dup(descriptor), manifest)
                self._evict()
            return {"groups": {group: groups[group].manifest}}, [groups[group].descriptor]

    def _stat(self, descriptors: list[int]) -> tuple[dict[str, Any], list[int]]:
        del descriptors
        with self._lock:
            return {
                "sets": {key: sorted(groups) for key, groups in self._sets.items()},
                "num_bytes": self._num_bytes(),
                "leases": {key: count for key, count in self._leases.items() if count},
            }, []

    def _num_bytes(self) -> int:
        groups = (group for each in self._sets.values() for group in each.values())
        return sum(os.fstat(group.descriptor).st_size for group in groups)

    def _evict(self) -> None:
        if not self.max_bytes:
            return
        for key in [key for key in self._sets if not self._leases.get(key)]:
            if self._num_bytes() <= self.max_bytes:
                return
            for group in self._sets.pop(key).values():
                os.close(group.descriptor)
