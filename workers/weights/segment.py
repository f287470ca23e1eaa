"""A group of tensors in one sealed memory file: nobody can change, grow or shrink it any more."""

import fcntl
import mmap
import os
from collections.abc import Mapping
from typing import Any

from shunt.errors import ShuntError

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
ALIGNMENT_BYTES = 4096
Manifest = dict[str, dict[str, Any]]
"""By tensor: `offset` and `num_bytes` in the file, `dtype` and `shape`."""


Part = tuple[memoryview, str, list[int]]
"""Bytes, dtype and shape of a tensor."""


class WeightsRefused(ShuntError):
    """Weights are not what they are taken for; the message names the tensor or the file."""


def create(
    name: str, parts: Mapping[str, tuple[memoryview, str, list[int]]]
) -> tuple[int, Manifest]:
    """A sealed file with every tensor's bytes, by name: (bytes, dtype, shape). The descriptor is
    the caller's. It is in no directory: with its last descriptor and mapping it is gone."""
    manifest: Manifest = {}
    end = 0
    for tensor, (data, dtype, shape) in parts.items():
        manifest[tensor] = {
            "offset": end, "num_bytes": data.nbytes, "dtype": dtype, "shape": shape,
        }  # fmt: skip
        end += -(-data.nbytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
    descriptor = os.memfd_create(f"shunt:{name}"[:200], os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, max(end, ALIGNMENT_BYTES))
        with mmap.mmap(descriptor, max(end, ALIGNMENT_BYTES)) as memory:
            for tensor, (data, _, _) in parts.items():
                first = manifest[tensor]["offset"]
                memory[first : first + data.nbytes] = data
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, manifest


def check(descriptor: int, manifest: Manifest) -> None:
    """Raises `WeightsRefused` for a file that could still change, or not as its manifest says."""
    try:
        seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
    except OSError as error:
        raise WeightsRefused("not a memory file that can be sealed") from error
    if seals & _SEALS != _SEALS:
        raise WeightsRefused("the memory file is not sealed: it could change under an engine")
    size = os.fstat(descriptor).st_size
    for name, entry in manifest.items():
        if entry["offset"] < 0 or entry["num_bytes"] < 0:
            raise WeightsRefused(f"tensor {name}: a negative place in its memory file")
        if entry["offset"] + entry["num_bytes"] > size:
            raise WeightsRefused(f"tensor {name}: ends outside of its memory file")


def map_readonly(descriptor: int) -> mmap.mmap:
    """The file's memory; a write to it ends the process. Lives as long as the object."""
    size = os.fstat(descriptor).st_size
    return mmap.mmap(descriptor, size, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
