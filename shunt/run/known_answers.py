"""Known answers: the index of what finished runs of one name have generated, kept in the store.

A run that is prepared writes the keys of the rows that it will generate, sorted and in parts of
bounded size; the run that is collected adds which of them have no answer. Only then do others find
them. Sorted parts make a lookup a binary search in a file of this machine, so that memory does not
grow with the number of rows.
"""

# Numpy's stubs leave array types open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shunt import keys
from shunt.results.summary import SUMMARY_NAME
from shunt.store.errors import ObjectMissing
from shunt.store.protocol import Store

KNOWN_KEY = np.dtype([("high", "<u8"), ("low", "<u8"), ("index", "<i8")])
"""One row of a part, sorted by `high`."""
_INDEX = np.dtype("<i8")
_FETCH_THREADS = 8
_HIGH_BITS = 64

Keys = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class KnownRun:
    """A finished run's answers, on this machine's disk."""

    run_id: str
    parts: dict[int, Path]
    """By number: of `num_parts` equal ranges of keys. One that is missing is empty."""
    num_parts: int
    unanswered: npt.NDArray[Any]
    """Indexes of rows without an answer, ascending."""

    def find(self, wanted: Keys, bucket: int, num_buckets: int) -> npt.NDArray[Any]:
        """The indexes of the rows with these keys, -1 where there is none. `wanted` has `high` and
        `low`, all of one bucket of so many equal ranges. Of keys with one `high` only one is found:
        another of 2^64 is generated once more."""
        found = np.full(len(wanted), -1, _INDEX)
        if self.num_parts <= num_buckets:
            numbers = [bucket * self.num_parts // num_buckets]
        else:
            width = self.num_parts // num_buckets
            numbers = list(range(bucket * width, (bucket + 1) * width))
        for path in filter(None, map(self.parts.get, numbers)):
            part = np.memmap(path, KNOWN_KEY, mode="r")
            places = np.searchsorted(part["high"], wanted["high"]).clip(max=len(part) - 1)
            there = part[places]
            same = (there["high"] == wanted["high"]) & (there["low"] == wanted["low"])
            found[same] = there["index"][same]
        found[np.isin(found, self.unanswered)] = -1
        return found


def finished_runs(store: Store, name: str) -> list[str]:
    """Ids of the runs of this name whose answers are there, sorted. What a person removed of old
    runs is not looked for."""
    prefix = keys.known_prefix(name)
    ends = "/" + keys.unanswered(name, "").rsplit("/", 1)[-1]
    names = (key.removeprefix(prefix) for key in store.list(prefix))
    found = sorted(name.removesuffix(ends) for name in names if name.endswith(ends))

    def stands(run_id: str) -> bool:
        try:
            return bool(store.size_bytes(keys.result(run_id, SUMMARY_NAME)))
        except ObjectMissing:
            return False

    with ThreadPoolExecutor(_FETCH_THREADS) as pool:
        return [
            run_id
            for run_id, is_there in zip(found, pool.map(stands, found), strict=True)
            if is_there
        ]


def fetch_known(store: Store, name: str, run_ids: Sequence[str], directory: Path) -> list[KnownRun]:
    """Bring the keys of these finished runs to this machine. Raises `StoreError`."""
    prefix = keys.known_prefix(name)
    parts: defaultdict[str, list[str]] = defaultdict(list)
    for key in store.list(prefix) if run_ids else ():
        run_id, _, file = key.removeprefix(prefix).partition("/")
        if file.endswith(".keys"):
            parts[run_id].append(file)

    def fetch(item: tuple[str, str]) -> None:
        run_id, file = item
        (directory / run_id).mkdir(parents=True, exist_ok=True)
        store.download(f"{prefix}{run_id}/{file}", directory / run_id / file)

    def known(run_id: str) -> KnownRun:
        numbers = {file: _numbers(file) for file in parts[run_id]}
        return KnownRun(
            run_id,
            {number: directory / run_id / file for file, (number, _) in numbers.items()},
            max((total for _, total in numbers.values()), default=1),
            np.frombuffer(store.get(keys.unanswered(name, run_id)), _INDEX),
        )

    with ThreadPoolExecutor(_FETCH_THREADS) as pool:
        wanted = [(run_id, file) for run_id in run_ids for file in parts[run_id]]
        list(pool.map(fetch, wanted))
        return list(pool.map(known, run_ids))


def _numbers(file: str) -> tuple[int, int]:
    """Of a part's file: its number, and of how many."""
    number, _, total = file.removesuffix(".keys").partition("-of-")
    return int(number), int(total)


def write_part(rows: Keys, path: Path) -> None:
    """`rows`: `KNOWN_KEY`s of one part, in any order."""
    path.write_bytes(np.sort(rows, order="high").tobytes())


def upload_known(
    store: Store, name: str, run_id: str, parts: Iterable[tuple[int, Path]], num_parts: int
) -> None:
    """Create the objects of the run's parts that are not there yet."""

    def upload(part: tuple[int, Path]) -> None:
        number, path = part
        store.put_if_absent(keys.known_part(name, run_id, number, num_parts), path.read_bytes())

    with ThreadPoolExecutor(_FETCH_THREADS) as pool:
        list(pool.map(upload, parts))


def mark_answered(store: Store, name: str, run_id: str, unanswered: Sequence[int]) -> None:
    """The run is finished, and these rows of it have no answer. Others may take the others'."""
    data = np.sort(np.array(unanswered, _INDEX)).tobytes()
    store.put_if_absent(keys.unanswered(name, run_id), data)


def bucket_of(high: npt.NDArray[Any], num_buckets: int) -> npt.NDArray[Any]:
    """Which of so many equal ranges (a power of two) a key is in, by its `high`."""
    bits = num_buckets.bit_length() - 1
    if bits == 0:
        return np.zeros(len(high), np.uint64)
    return high >> np.uint64(_HIGH_BITS - bits)
