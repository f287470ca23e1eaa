"""Cutting prompts into shard tables."""

# Pyarrow's stubs leave type parameters open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from shunt.dataset.input_row import Chunk
from shunt.dataset.prompt_row import PromptReader, PromptRow
from shunt.shard import CARRIED_PREFIX, SCHEMA

MAX_SHARD_BYTES = 64 << 20
"""A shard of very long prompts is cut before it has its number of rows."""


@dataclass(slots=True)
class ShardCutter:
    """Turns chunks into shard tables of `shard_prompts` rows, in order, at constant memory."""

    reader: PromptReader
    shard_prompts: int
    num_rows: int = 0
    _columns: dict[str, list[Any]] = field(
        default_factory=lambda: {name: [] for name in SCHEMA.names}
    )
    _carried: list[pa.Table] = field(default_factory=list[pa.Table])
    _bytes: int = 0

    def cut(self, chunk: Chunk) -> Iterator[tuple[list[PromptRow], pa.Table | None]]:
        """Yields the prompts of the chunk piece by piece, each with the shard table that it
        completes, if it does."""
        piece: list[PromptRow] = []
        first = 0
        for position, row in enumerate(chunk.rows):
            made = self.reader.read(row, self.num_rows)
            self.num_rows += 1
            piece.append(made)
            self._append(made, row.raw)
            if self._full():
                self._carry(chunk, first, position + 1)
                yield piece, self.rest()
                piece, first = [], position + 1
        self._carry(chunk, first, len(chunk.rows))
        yield piece, None

    def rest(self) -> pa.Table | None:
        """What is not in a shard yet, as the last one."""
        if not self._columns["index"]:
            return None
        table = pa.table(self._columns, schema=SCHEMA)
        if self._carried:
            carried = pa.concat_tables(self._carried, promote_options="permissive")
            for name in carried.column_names:
                table = table.append_column(CARRIED_PREFIX + name, carried.column(name))
        self._columns = {name: [] for name in SCHEMA.names}
        self._carried, self._bytes = [], 0
        return table

    def _full(self) -> bool:
        return len(self._columns["index"]) >= self.shard_prompts or self._bytes >= MAX_SHARD_BYTES

    def _carry(self, chunk: Chunk, first: int, last: int) -> None:
        if chunk.carried is not None and last > first:
            self._carried.append(chunk.carried.slice(first, last - first))

    def _append(self, made: PromptRow, raw: str | None) -> None:
        prompt, columns = made.prompt, self._columns
        error = prompt.error
        columns["index"].append(prompt.index)
        columns["prompt_id"].append(prompt.prompt_id)
        columns["text"].append(prompt.text)
        columns["messages"].append(None if prompt.messages is None else _json(prompt.messages))
        columns["token_ids"].append(prompt.token_ids)
        columns["sampling"].append(_json(made.own_sampling) if made.own_sampling else None)
        columns["error_code"].append(None if error is None else error.code.value)
        columns["error_message"].append(None if error is None else error.message)
        columns["row"].append(raw)
        self._bytes += len(raw or "") + len(prompt.text or "") + 4 * len(prompt.token_ids or ())


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
