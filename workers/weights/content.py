"""The digest of a model's bytes: read once, and again whenever a file is not the same any more."""

import hashlib
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from workers.weights.checkpoint import check_whole, weight_files

_READ_BYTES = 1 << 22
_Identity = tuple[int, int, int, int, int]


@dataclass(slots=True)
class ContentDigests:
    """Remembers the digest of each file by its device, inode, size and times of change. Whoever
    writes to a file changes these; two files that are alike in name and header do not share them.
    May be used from several threads."""

    _known: dict[_Identity, str] = field(default_factory=dict[_Identity, str])
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def of_model(self, directory: Path) -> str:
        """Hexadecimal, of the weights and config.json. Raises `WeightsRefused`, naming the file."""
        files = [*weight_files(directory), directory / "config.json"]
        digest = hashlib.sha256()
        for path in files:
            digest.update(f"{path.name}:{self._of_file(path)}\n".encode())
        return digest.hexdigest()

    def _of_file(self, path: Path) -> str:
        with path.open("rb") as opened:
            stat = os.fstat(opened.fileno())
            identity = (
                stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns,
            )  # fmt: skip
            with self._lock:  # held while reading: who asks for the same waits for the first
                if identity not in self._known:
                    if path.suffix == ".safetensors":
                        check_whole(path)
                    self._known[identity] = _sha256(opened)
                return self._known[identity]


def _sha256(opened: BinaryIO) -> str:
    digest = hashlib.sha256()
    while data := opened.read(_READ_BYTES):
        digest.update(data)
    return digest.hexdigest()
