"""Finding duplicate ids among millions at sixteen bytes each."""

# Numpy's stubs leave array types open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

import numpy as np
import xxhash

_FIRST_CAPACITY = 1 << 16


class IdRegister:
    """Takes (id, index) pairs; tells at the end which indexes may repeat an earlier id.

    Holds a 64-bit hash and a 64-bit index per id, so the answer names candidates: compare the ids.
    """

    def __init__(self) -> None:
        self._hashes = np.empty(_FIRST_CAPACITY, np.uint64)
        self._indexes = np.empty(_FIRST_CAPACITY, np.int64)
        self._count = 0

    def add(self, prompt_id: str, index: int) -> None:
        if self._count == len(self._hashes):
            self._hashes = np.resize(self._hashes, 2 * self._count)
            self._indexes = np.resize(self._indexes, 2 * self._count)
        self._hashes[self._count] = xxhash.xxh3_64_intdigest(prompt_id.encode())
        self._indexes[self._count] = index
        self._count += 1

    def candidates(self) -> list[list[int]]:
        """Groups of indexes, ascending, whose ids have one hash; groups of one are left out."""
        hashes, indexes = self._hashes[: self._count], self._indexes[: self._count]
        order = np.argsort(hashes, kind="stable")
        ordered = hashes[order]
        starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
        ends = np.append(starts[1:], self._count)
        repeated = np.flatnonzero(ends - starts > 1)
        return [sorted(indexes[order[starts[g] : ends[g]]].tolist()) for g in repeated]
