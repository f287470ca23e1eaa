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

from shunt.dataset.prompt_id import made_id
from shunt.dataset.shard import merged, sampling_of_row
from shunt.job.sampling import Sampling

ROW_KEY = np.dtype([("high", "<u8"), ("low", "<u8"), ("kind", "u1")])
"""128 bits of BLAKE2b and a `KeyKind`."""
_DIGEST_BYTES = 16
_TEXT = b"text"
_NO_DIGEST = bytes(_DIGEST_BYTES)
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

    started: "hashlib.blake2b"
    """Has taken what such rows share."""
    draws: bool
    """With a seed that nobody named."""
    structured: bool

    def begun(self, what: bytes, draws_for: bytes = b"") -> "hashlib.blake2b":
        """Takes the content last. Lengths stand before the parts, so that no two rows are spelt
        alike."""
        hasher = self.started.copy()
        hasher.update(b"%d %s %d %s" % (len(what), what, len(draws_for), draws_for))
        return hasher


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
        begun = recipe.begun(_TEXT)
        digests: list[bytes] = []
        for text in table.column("text").cast(pa.binary()).to_pylist():
            hasher = begun.copy()
            hasher.update(text or b"")
            digests.append(hasher.digest())
        return digests, _KIND_OF[recipe.structured]

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
                hasher, content = recipe.begun(_TEXT, draws_for), text.encode()
            elif messages is not None:
                hasher, content = recipe.begun(chat, draws_for), messages.encode()
            else:
                content = array("i", token_ids or ()).tobytes()
                hasher = recipe.begun(b"token ids", draws_for)
            hasher.update(content)
            digests.append(hasher.digest())
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
    text = sampling.model_copy(update={"seed": decides}).model_dump_json(by_alias=True).encode()
    started = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    started.update(b"%d %d " % (len(basis), len(text)) + basis + text)
    return _Recipe(started, draws, sampling.structured_outputs is not None)
