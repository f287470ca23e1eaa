"""Which bytes of a safetensors checkpoint a stage needs, and the tensors read from just those.

Pure but for the reading: headers say where each tensor lies, so nothing is partitioned beforehand.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workers.weights.segment import WeightsRefused

GAP_BYTES = 256 << 10
"""Two ranges that lie closer are read as one: a request costs more than so many bytes."""
RANGE_BYTES = 32 << 20
"""Longer ranges are cut, so that several threads share them."""
THREADS = 8
_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 100 << 20
"""As the safetensors library has it."""
_LAYER = re.compile(r"(?:^|\.)(?:layers|h)\.(\d+)\.")

ReadRange = Callable[[str, int, int], bytes]
"""Of a file's name, its start and its length: exactly those bytes. From several threads."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where a tensor lies, and what it is."""

    name: str
    file: str
    start: int
    """In the file; the header counted."""
    num_bytes: int
    dtype: str
    shape: tuple[int, ...]

    @property
    def end(self) -> int:
        return self.start + self.num_bytes


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Consecutive bytes of a file, and the tensors in them."""

    file: str
    start: int
    end: int
    tensors: tuple[StoredTensor, ...]


def layer_of(name: str) -> int | None:
    """The layer of a tensor of a checkpoint; None for one outside of the layers."""
    found = _LAYER.search(name)
    return int(found[1]) if found else None


def weight_files(directory: Path) -> list[Path]:
    """The checkpoint's files in order, by the index where there is one. Raises `WeightsRefused`."""
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        paths = [directory / name for name in names]
    else:
        paths = sorted(directory.glob("*.safetensors"))
    for path in paths:
        if not path.is_file():
            raise WeightsRefused(f"{path}: the index names it, and it is not there")
    if not paths:
        raise WeightsRefused(f"{directory}: no safetensors files")
    return paths


def check_whole(path: Path) -> list[StoredTensor]:
    """The tensors of a file, whose size is as its header says. Raises `WeightsRefused`."""

    def read(_: str, start: int, length: int) -> bytes:
        with path.open("rb") as opened:
            opened.seek(start)
            return opened.read(length)

    tensors = stored_tensors(path.name, read, where=str(path))
    end = max((tensor.end for tensor in tensors), default=0)
    if (size := path.stat().st_size) != end:
        raise WeightsRefused(f"{path}: {size} bytes, and its header says {end}: fetch it again")
    return tensors


def stored_tensors(file: str, read: ReadRange, *, where: str = "") -> list[StoredTensor]:
    """What a file holds, by its header. Raises `WeightsRefused`."""
    where = where or file
    length = int.from_bytes(read(file, 0, _LENGTH_BYTES), "little")
    if not 0 < length <= _MAX_HEADER_BYTES:
        raise WeightsRefused(f"{where}: no safetensors file, or cut short")
    data = read(file, _LENGTH_BYTES, length)
    try:
        header: dict[str, Any] = json.loads(data)
        first = _LENGTH_BYTES + length
        return [
            StoredTensor(
                name, file, first + entry["data_offsets"][0],
                entry["data_offsets"][1] - entry["data_offsets"][0],
                entry["dtype"], tuple(entry["shape"]),
            )
            for name, entry in header.items() if name != "__metadata__"
        ]  # fmt: skip
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsRefused(f"{where}: its header cannot be read: {error}") from error


def ranges_of(tensors: Iterable[StoredTensor], *, gap_bytes: int = GAP_BYTES) -> list[ByteRange]:
    """The fewest ranges that hold all of them with no gap over `gap_bytes`, in order. Pure."""
    ranges: list[ByteRange] = []
    for tensor in sorted(tensors, key=lambda t: (t.file, t.start)):
        last = ranges[-1] if ranges else None
        near = (
            last is not None
            and last.file == tensor.file
            and tensor.start - last.end <= gap_bytes
            and tensor.end - last.start <= RANGE_BYTES
        )
        if near and last is not None:
            tensors_in = (*last.tensors, tensor)
            ranges[-1] = ByteRange(last.file, last.start, max(last.end, tensor.end), tensors_in)
        else:
            ranges.append(ByteRange(tensor.file, tensor.start, tensor.end, (tensor,)))
    return ranges


def read_tensors(
    ranges: Sequence[ByteRange],
    read: ReadRange,
    *,
    told: Callable[[int, int], None] = lambda _done, _all: None,
    threads: int = THREADS,
) -> Iterator[tuple[StoredTensor, memoryview]]:
    """Every tensor of the ranges and its bytes, in order; the next ranges are read meanwhile.

    `told` gets bytes so far and in all. Raises `WeightsRefused` for a range that came short.
    """
    total, done = sum(each.end - each.start for each in ranges), 0
    with ThreadPoolExecutor(threads, "weights") as pool:
        waiting = [pool.submit(read, r.file, r.start, r.end - r.start) for r in ranges[:threads]]
        for number, each in enumerate(ranges):
            data = memoryview(waiting.pop(0).result())
            if (later := number + threads) < len(ranges):
                after = ranges[later]
                waiting.append(pool.submit(read, after.file, after.start, after.end - after.start))
            if data.nbytes != each.end - each.start:
                raise WeightsRefused(f"{each.file}: cut short at byte {each.start + data.nbytes}")
            for tensor in each.tensors:
                first = tensor.start - each.start
                yield tensor, data[first : first + tensor.num_bytes]
            done += data.nbytes
            told(done, total)
