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


def make_bundle(repository: Path) -> Bundle:
    """The same bytes for the same files: no times, no owners, a fixed order."""
    files = [repository / LOCK]
    for folder in _FOLDERS:
        files += [p for p in (repository / folder).rglob("*") if p.is_file()]
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for path in sorted(files):
            if any(part in _LEFT_OUT for part in path.parts):
                continue
            data = path.read_bytes()
            entry = tarfile.TarInfo(path.relative_to(repository).as_posix())
            entry.size = len(data)
            entry.mode = 0o755 if path.suffix == ".sh" else 0o644
            tar.addfile(entry, io.BytesIO(data))
    return Bundle(gzip.compress(packed.getvalue(), mtime=0))
