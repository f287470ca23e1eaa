"""The key of a row: a hash of all that decides its answer. Equal keys, equal answers."""

# Numpy's stubs leave array types open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

import hashlib
from array import array
from dataclasses import dataclass, field
from enum import IntFlag
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from shunt.dataset.prompt_id import made_id
from shunt.dataset.shard import merged, sampling_of_row
from shunt.job.sampling import Sampling

ROW_KEY = np.dtype([("high", "<u8"), ("low", "<u8"), ("kind", "u1")])
"""128 bits of XXH3, which holds against chance and not against prompts that were made to collide,
and a `KeyKind`. Rows of other sampling or of another model are hashed with another seed, of 64 bits
of BLAKE2b."""
_digest = xxhash.xxh3_128_digest
_TEXT = b"text"
_NO_DIGEST = bytes(16)
_MAX_RECIPES = 10_000
"""Of own sampling parameters that are kept: rows of still others cost a little more."""


class KeyKind(IntFlag):
    """What else is known of a row that has a key."""

    NONE = 0
    """It has no key: it will get no answer."""
    ANSWERED = 1
    APART = 2
    """It samples with a seed that nobody named and has no id of its own, so its equals in one
    dataset are to get other answers. They are told apart by their number."""
    STRUCTURED = 4
    """Its answer depends on the grammar back end too, which is settled when all rows are read."""


_KIND_OF = {
    False: int(KeyKind.ANSWERED),
    True: int(KeyKind.ANSWERED | KeyKind.STRUCTURED),
}


class _Recipe(NamedTuple):
    """How the rows of one kind of sampling are hashed."""

    basis: bytes
    """All that such rows share."""
    draws: bool
    """With a seed that nobody named."""
    structured: bool
    seeds: dict[bytes, int]
    """Of rows without anything of their own in it."""

    def seed(self, what: bytes, draws_for: bytes = b"") -> int:
        """For the hash of a row's content. Lengths stand before the parts, so that no two are spelt
        alike."""
        if not draws_for and (known := self.seeds.get(what)) is not None:
            return known
        parts = (self.basis, what, draws_for)
        framed = b"".join(len(part).to_bytes(8, "little") + part for part in parts)
        seed = int.from_bytes(hashlib.blake2b(framed, digest_size=8).digest(), "little")
        if not draws_for:
            self.seeds[what] = seed
        return seed


@dataclass(slots=True)
class AnswerKeys:
    """Gives each row of a shard table its key.

    A row whose seed is derived (from run and id) and that has an id of its own has it in its key:
    the same row gets its own answer again, another row of the same prompt does not. The seed of a
    greedy row decides nothing, and is left out.
    """

    basis: bytes
    """What decides the answers of all rows alike: the model, say."""
    defaults: Sampling
    day: str = ""
    """What the chat template is told of the time; empty where it does not ask."""
    _recipes: dict[str | None, _Recipe] = field(default_factory=dict[str | None, _Recipe])

    def of(self, table: pa.Table) -> npt.NDArray[Any]:
        """`ROW_KEY` of each row, in order."""
        alike = self._of_plain_rows(table)
        digests, kinds = self._of_any_rows(table) if alike is None else alike
        keys = np.empty(table.num_rows, ROW_KEY)
        halves = np.frombuffer(b"".join(digests), "<u8").reshape(-1, 2)
        keys["high"], keys["low"], keys["kind"] = halves[:, 0], halves[:, 1], kinds
        return keys

    def _of_plain_rows(self, table: pa.Table) -> tuple[list[bytes], Any] | None:
        """(digests, kinds) where all rows are texts that are sampled alike, which most are."""
        others = ("messages", "token_ids", "sampling", "error_code")
        recipe = self._recipe(None)
        if recipe.draws or any(table.column(n).null_count < table.num_rows for n in others):
            return None
        seed, texts = recipe.seed(_TEXT), table.column("text").cast(pa.binary()).to_pylist()
        return [_digest(text or b"", seed) for text in texts], _KIND_OF[recipe.structured]

    def _of_any_rows(self, table: pa.Table) -> tuple[list[bytes], Any]:
        names = ("prompt_id", "text", "messages", "token_ids", "sampling", "error_code")
        columns = [table.column(name).to_pylist() for name in names]
        first = table.column("index")[0].as_py() if table.num_rows else 0
        chat = b"messages " + self.day.encode()
        digests: list[bytes] = []
        kinds = np.zeros(table.num_rows, np.uint8)
        rows = zip(*columns, strict=True)
        for row, (prompt_id, text, messages, token_ids, own, error) in enumerate(rows):
            if error is not None:
                digests.append(_NO_DIGEST)
                continue
            recipe = self._recipe(own)
            kind = _KIND_OF[recipe.structured]
            draws_for = b""
            if recipe.draws and prompt_id == made_id(first + row):
                kind |= KeyKind.APART
            elif recipe.draws:
                draws_for = prompt_id.encode()
            kinds[row] = kind
            if text is not None:
                what, content = _TEXT, text.encode()
            elif messages is not None:
                what, content = chat, messages.encode()
            else:
                what, content = b"token ids", array("i", token_ids or ()).tobytes()
            digests.append(_digest(content, recipe.seed(what, draws_for)))
        return digests, kinds

    def _recipe(self, own: str | None) -> _Recipe:
        known = self._recipes.get(own)
        if known is None:
            known = _recipe_of(self.basis, merged(self.defaults, sampling_of_row(own)))
            if len(self._recipes) < _MAX_RECIPES:
                self._recipes[own] = known
        return known


def _recipe_of(basis: bytes, sampling: Sampling) -> _Recipe:
    named = sampling.seed is not None and sampling.seed != -1
    draws = sampling.temperature > 0 and not named
    decides = sampling.seed if sampling.temperature > 0 and named else None
    text = sampling.model_copy(update={"seed": decides}).model_dump_json(by_alias=True)
    shared = basis + text.encode()  # the basis is a digest: always as long
    return _Recipe(shared, draws, sampling.structured_outputs is not None, {})
