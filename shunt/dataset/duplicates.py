"""Finding duplicate ids among millions, at eight bytes each and as much again for the search."""

# Numpy's stubs leave array types open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import xxhash


class IdRegister:
    """Takes the ids of all rows in order; tells at the end which rows may repeat an id.

    Holds a 64-bit hash per id, so the answer names candidates: compare the ids themselves.
    """

    def __init__(self) -> None:
        self._hashes: list[Any] = []

    def add(self, prompt_ids: Sequence[str]) -> None:
        """The ids of the next rows."""
        hashed = map(xxhash.xxh3_64_intdigest, map(str.encode, prompt_ids))
        self._hashes.append(np.fromiter(hashed, np.uint64, len(prompt_ids)))

    def has(self, prompt_id: str) -> bool:
        """Whether a row has this id, or one with the same hash."""
        wanted = np.uint64(xxhash.xxh3_64_intdigest(prompt_id.encode()))
        return any(bool((hashes == wanted).any()) for hashes in self._hashes)

    def candidates(self) -> Iterator[int]:
        """Indexes, ascending, of the rows whose ids share their hash with another row's."""
        ordered = np.concatenate([np.empty(0, np.uint64), *self._hashes])
        ordered.sort()
        repeated = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
        del ordered
        first = 0
        for hashes in self._hashes if len(repeated) else ():
            places = np.searchsorted(repeated, hashes).clip(max=len(repeated) - 1)
            yield from (first + np.flatnonzero(repeated[places] == hashes)).tolist()
            first += len(hashes)
