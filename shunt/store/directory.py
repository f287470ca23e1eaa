"""The store as a directory of a local or shared POSIX file system: the embedded default.

Create-if-absent is a hard link to a name, which the file system grants to exactly one process. It
needs no lock, so a killed process leaves none behind.
"""

import errno
import os
import shutil
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from shunt.store.errors import ObjectMissing, StoreDenied, StoreError, StoreFull
from shunt.store.object_key import check_key, check_prefix
from shunt.store.staging import publish_new, publish_over, staged_file

_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR}
"""A name that is a folder, or that lies under a file, is not an object either."""

_COPY_CHUNK_BYTES = 1 << 20


class DirectoryStore:
    """Objects are files; `root` is created at the first write."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()

    @property
    def uri(self) -> str:
        return self._root.as_uri()

    def get(self, key: str) -> bytes:
        with self._reading(key):
            return self._path(key).read_bytes()

    def get_range(self, key: str, *, start: int, length: int) -> bytes:
        with self._reading(key), self._path(key).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if not (0 <= start < size and length > 0):
                raise StoreError(
                    f"{self.uri}/{key}: {length} bytes from {start} is no range of {size} bytes",
                    uri=self.uri,
                    key=key,
                )
            file.seek(start)
            return file.read(length)

    def size_bytes(self, key: str) -> int:
        path = self._path(key)
        with self._reading(key):
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
            return path.stat().st_size

    def list(self, prefix: str) -> Iterator[str]:
        folder = self._root / check_prefix(prefix)
        with self._translated("list", prefix):
            return iter(sorted(_walk(folder, prefix)))

    def put(self, key: str, data: bytes) -> None:
        target = self._path(key)
        with self._translated("write", key), staged_file(target) as (file, staged):
            file.write(data)
            publish_over(file, staged, target)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        target = self._path(key)
        with self._translated("write", key), staged_file(target) as (file, staged):
            file.write(data)
            created = publish_new(file, staged, target)
            return created or target.read_bytes() == data

    def put_file(self, key: str, path: Path) -> None:
        target = self._path(key)
        with (
            path.open("rb") as source,
            self._translated("write", key),
            staged_file(target) as (file, staged),
        ):
            shutil.copyfileobj(source, file, _COPY_CHUNK_BYTES)
            publish_over(file, staged, target)

    def download(self, key: str, path: Path) -> None:
        with self._reading(key):
            source = self._path(key).open("rb")
        with source, staged_file(path) as (file, staged):
            shutil.copyfileobj(source, file, _COPY_CHUNK_BYTES)
            publish_over(file, staged, path)

    def delete(self, key: str) -> None:
        with self._translated("delete", key):
            self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._root / check_key(key)

    @contextmanager
    def _reading(self, key: str) -> Generator[None]:
        with self._translated("read", key):
            try:
                yield
            except OSError as error:
                if error.errno not in _ABSENT:
                    raise
                raise ObjectMissing(
                    f"{self.uri}/{key}: no such object", uri=self.uri, key=key
                ) from error

    @contextmanager
    def _translated(self, verb: str, key: str) -> Generator[None]:
        try:
            yield
        except OSError as error:
            kind, advice = _explain(error)
            raise kind(
                f"cannot {verb} {self.uri}/{key}: {error.strerror}; {advice}",
                uri=self.uri,
                key=key,
            ) from error


def _walk(folder: Path, prefix: str) -> Iterator[str]:
    """Keys under a folder, in no order. A folder that is not there holds none."""
    try:
        entries = os.scandir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return
    with entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue  # staged files, and nothing that has a key
            if entry.is_dir():
                yield from _walk(Path(entry.path), f"{prefix}{entry.name}/")
            else:
                yield prefix + entry.name


def _explain(error: OSError) -> tuple[type[StoreError], str]:
    if error.errno in _DENIED:
        return StoreDenied, (
            "give this user the right to read and write there, on a file system with hard links, "
            "or choose another store"
        )
    if error.errno in _FULL:
        return StoreFull, "free some space or raise the limit, then run again: it carries on"
    return StoreError, "check the disk and the path, then run again: it carries on"
