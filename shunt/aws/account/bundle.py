"""The bundle: code and locked requirements of a worker, for nodes whose image has neither.

Its name in the bucket is its digest, and the user data names it, so that a node never runs another
code than the one its launch template was made with.
"""

import gzip
import hashlib
import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

LOCK = "requirements/worker-cuda.lock"
LOCK_IN_BUNDLE = "requirements/worker.lock"
_FOLDERS = ("shunt", "workers", "deployments/aws")
_LEFT_OUT = ("__pycache__",)


@dataclass(frozen=True, slots=True)
class Bundle:
    """A gzipped tar."""

    data: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    def key(self, prefix: str) -> str:
        return f"{prefix}bundles/{self.sha256}.tar.gz"


def make_bundle(repository: Path, lock: Path | None = None) -> Bundle:
    """The same bytes for the same files: no times, no owners, a fixed order. `lock`: what nodes
    install; unset: the one for NVIDIA GPUs."""
    files = {LOCK_IN_BUNDLE: lock or repository / LOCK}
    for folder in _FOLDERS:
        for path in (repository / folder).rglob("*"):
            if path.is_file() and not any(part in _LEFT_OUT for part in path.parts):
                files[path.relative_to(repository).as_posix()] = path
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, path in sorted(files.items()):
            data = path.read_bytes()
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            entry.mode = 0o755 if path.suffix == ".sh" else 0o644
            tar.addfile(entry, io.BytesIO(data))
    return Bundle(gzip.compress(packed.getvalue(), mtime=0))
