"""The store protocol: the few verbs that a directory, S3 and other object stores all have.

What every implementation promises:

- An object is seen whole or not at all, also after a crash of the writer or of the machine.
- Reads and listings see every write that had returned before they began.
- All verbs may be called from several threads and processes at once.
- Verbs retry transient failures by themselves, within `shunt.retry`'s bounds, and raise
  `shunt.store.errors` only. Never wrap a retry around them.
- A `StoreUnavailable` out of a write leaves it open whether the write happened; repeating it with
  the same key and bytes is safe.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol


class Store(Protocol):
    """Objects under keys (`shunt.store.object_key` says which keys are allowed)."""

    @property
    def uri(self) -> str:
        """Where the store is, in the form that `open_store` takes."""
        ...

    def get(self, key: str) -> bytes:
        """The object's bytes. Raises `ObjectMissing`."""
        ...

    def get_range(self, key: str, *, start: int, length: int) -> bytes:
        """`length` bytes from `start`, fewer where the object ends first. Raises `ObjectMissing`.

        `start` must lie inside the object and `length` be positive, else `StoreError`.
        """
        ...

    def size_bytes(self, key: str) -> int:
        """The object's size. Raises `ObjectMissing`."""
        ...

    def list(self, prefix: str) -> Iterator[str]:
        """The keys under `prefix` (empty, or ending with a slash), sorted.

        The listing is complete before this returns: errors rise here, not while iterating.
        """
        ...

    def put(self, key: str, data: bytes) -> None:
        """Create or replace an object of a key that has one writer."""
        ...

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Create an object unless there is one; of several writers exactly one wins.

        True when the stored object is ours, which is decided by content: a repeated call, or one
        whose reply was lost, finds its own bytes and says True. So bytes that must not be taken for
        another writer's carry a nonce. False when the stored object is someone else's.
        """
        ...

    def put_file(self, key: str, path: Path) -> None:
        """Like `put`, streaming a file of any size; it must not change meanwhile.

        Raises `OSError` when the local file cannot be opened.
        """
        ...

    def download(self, key: str, path: Path) -> None:
        """Stream an object, which nobody may be replacing, to a local file.

        The file appears whole or not at all. Raises `ObjectMissing`.
        """
        ...

    def delete(self, key: str) -> None:
        """Remove an object; it need not exist. No object of a run is ever deleted: this is for
        what stands beside results, for tests, and for a purge that the user asked for."""
        ...
