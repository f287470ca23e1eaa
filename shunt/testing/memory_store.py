"""A store in this process's memory, for tests that make very many of them."""

import threading
from collections.abc import Iterator
from pathlib import Path

from shunt.store.errors import ObjectMissing, StoreError
from shunt.store.object_key import check_key, check_prefix


class MemoryStore:
    """Held to the same contract suite as the directory and S3."""

    def __init__(self) -> None:
        self._objects: dict[str, bytes] = {}
        self._lock = threading.Lock()

    @property
    def uri(self) -> str:
        return "memory://"

    def get(self, key: str) -> bytes:
        check_key(key)
        with self._lock:
            if key in self._objects:
                return self._objects[key]
        raise ObjectMissing(f"{self.uri}{key}: no such object", uri=self.uri, key=key)

    def get_range(self, key: str, *, start: int, length: int) -> bytes:
        data = self.get(key)
        if 0 <= start < len(data) and length > 0:
            return data[start : start + length]
        raise StoreError(f"{self.uri}{key}: no such range", uri=self.uri, key=key)

    def size_bytes(self, key: str) -> int:
        return len(self.get(key))

    def list(self, prefix: str) -> Iterator[str]:
        check_prefix(prefix)
        with self._lock:
            return iter(sorted(key for key in self._objects if key.startswith(prefix)))

    def put(self, key: str, data: bytes) -> None:
        check_key(key)
        with self._lock:
            self._objects[key] = bytes(data)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        check_key(key)
        with self._lock:
            return self._objects.setdefault(key, bytes(data)) == data

    def put_file(self, key: str, path: Path) -> None:
        self.put(key, path.read_bytes())

    def download(self, key: str, path: Path) -> None:
        data = self.get(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def delete(self, key: str) -> None:
        check_key(key)
        with self._lock:
            self._objects.pop(key, None)
