"""Plain rows: a text prompt, perhaps an id, nothing else that means anything. Most rows are."""

# Pyarrow's stubs leave type parameters open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc


class PlainBatch(NamedTuple):
    """What some plain rows say."""

    prompt_ids: list[str] | None
    """None: they have none of their own."""
    texts: list[str]
    num_bytes: int
    """Of the texts in UTF-8."""


@dataclass(frozen=True, slots=True)
class PlainRows:
    """Tells plain rows apart, many at a time: those of which `PromptReader` finds no mistake.

    It may say no to any rows, as `PromptReader` then reads them; where it says yes, both agree.
    """

    id_columns: Sequence[str]
    """The first that a row has counts."""
    needs_id: bool
    prompt: str
    others: Sequence[str]
    """Columns of other prompts and of sampling parameters: a plain row has none of them."""
    max_prompt_bytes: int
    """Longer ones may be over the context."""
    begins_with: str = ""
    """A text that begins with the text of this token is looked at closely; empty: none."""

    def read(self, rows: Sequence[Mapping[str, Any]]) -> PlainBatch | None:
        """None where one of the rows is not plain, or they are not plain in one way."""
        names: set[str] = set()
        for shape in set(map(tuple, rows)):
            names.update(shape)
        if any(name in names and _any_given(rows, name) for name in self.others):
            return None
        texts: list[Any] = [row.get(self.prompt) for row in rows]
        if set(map(type, texts)) != {str} or "" in texts or any(map(str.isspace, texts)):
            return None
        if self.begins_with and any(text.startswith(self.begins_with) for text in texts):
            return None
        lengths = pc.binary_length(pa.array(texts, pa.string()))
        if pc.max(lengths).as_py() > self.max_prompt_bytes:
            return None
        num_bytes = pc.sum(lengths).as_py()
        id_columns = [n for n in self.id_columns if n in names and _any_given(rows, n)]
        if not id_columns:
            return None if self.needs_id else PlainBatch(None, texts, num_bytes)
        prompt_ids = self._prompt_ids(rows, id_columns[0])
        return None if prompt_ids is None else PlainBatch(prompt_ids, texts, num_bytes)

    def _prompt_ids(self, rows: Sequence[Mapping[str, Any]], name: str) -> list[str] | None:
        ids: list[Any] = [row.get(name) for row in rows]
        kinds = set(map(type, ids))
        if kinds == {int}:
            return list(map(str, ids))
        return ids if kinds == {str} and "" not in ids else None


def _any_given(rows: Sequence[Mapping[str, Any]], name: str) -> bool:
    return any(row.get(name) is not None for row in rows)
