"""Cutting prompts into shard tables."""

# Pyarrow's stubs leave type parameters open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from shunt.dataset.duplicates import IdRegister
from shunt.dataset.input_row import Chunk
from shunt.dataset.plain_row import PlainBatch
from shunt.dataset.preflight import PreflightReport
from shunt.dataset.prompt_id import made_id
from shunt.dataset.prompt_row import PromptReader, PromptRow
from shunt.dataset.shard import BESIDE, CARRIED_PREFIX, SCHEMA, chat_text, compact_json

MAX_SHARD_BYTES = 64 << 20
"""A shard of very long prompts is cut before it has its number of rows."""
_RARE = ("messages", "token_ids", "sampling", "error_code", "error_message")
"""Columns of which a shard of plain rows has only nulls."""
_MALFORMED = "malformed"
_SMALL_ROWS = 64

_Rare = dict[int, Any]


@dataclass(slots=True)
class ShardCutter:
    """Turns chunks into shard tables of `shard_prompts` rows, in order, at constant memory.

    Counts every row in `report`, and adds every id to `register`, once its shard is cut.
    """

    reader: PromptReader
    shard_prompts: int
    report: PreflightReport
    register: IdRegister
    num_rows: int = 0
    _ids: list[str] = field(default_factory=list[str])
    _texts: list[str | None] = field(default_factory=list[str | None])
    _raws: list[bytes | None] = field(default_factory=list[bytes | None])
    _rare: dict[str, _Rare] = field(default_factory=lambda: {name: {} for name in _RARE})
    _malformed: _Rare = field(default_factory=dict[int, Any])
    _carried: list[pa.Table] = field(default_factory=list[pa.Table])
    _origins: list[tuple[int, Sequence[int]]] = field(
        default_factory=list[tuple[int, Sequence[int]]]
    )
    """File and lines of the rows, part by part."""
    _bytes: int = 0

    def cut(self, chunk: Chunk) -> Iterator[pa.Table]:
        """The shard tables that the rows of the chunk complete."""
        first = 0
        while first < len(chunk):
            last = min(len(chunk), first + self.shard_prompts - len(self._ids))
            self._take(chunk, first, last)
            if chunk.carried is not None:
                self._carried.append(chunk.carried.slice(first, last - first))
            self._origins.append((chunk.file, chunk.numbers[first:last]))
            first = last
            if len(self._ids) >= self.shard_prompts or self._bytes >= MAX_SHARD_BYTES:
                yield self._table()

    def rest(self) -> Iterator[pa.Table]:
        """What is not in a shard yet, as the last one."""
        if self._ids:
            yield self._table()

    def _table(self) -> pa.Table:
        count = len(self._ids)
        self.register.add(self._ids)
        columns: dict[str, Any] = {
            "index": np.arange(self.num_rows - count, self.num_rows),
            "prompt_id": self._ids,
            "text": self._texts,
            # Checked as UTF-8 by the cast: faster than row by row.
            "row": pa.array(self._raws, pa.binary()).cast(pa.string()),
        }
        for name, values in self._rare.items():
            kind = SCHEMA.field(name).type
            given = map(values.get, range(count))
            columns[name] = pa.array(given, kind) if values else pa.nulls(count, kind)
        table = pa.table({name: columns[name] for name in SCHEMA.names}, schema=SCHEMA)
        for name, values in self._beside(count).items():
            table = table.append_column(BESIDE.field(name), values)
        if self._carried:
            carried = pa.concat_tables(self._carried, promote_options="permissive")
            for name in carried.column_names:
                table = table.append_column(CARRIED_PREFIX + name, carried.column(name))
        self._ids, self._texts, self._raws = [], [], []
        self._rare, self._malformed = {name: {} for name in _RARE}, {}
        self._carried, self._origins, self._bytes = [], [], 0
        return table

    def _beside(self, count: int) -> dict[str, Any]:
        """The columns of `BESIDE` that the table needs."""
        sizes = [len(numbers) for _, numbers in self._origins]
        files = np.repeat(np.array([file for file, _ in self._origins], np.int32), sizes)
        lines = np.concatenate([np.asarray(numbers, np.int64) for _, numbers in self._origins])
        columns: dict[str, Any] = {"file": pa.array(files), "line": pa.array(lines)}
        if self._malformed:
            texts = map(self._malformed.get, range(count))
            columns[_MALFORMED] = pa.array(texts, BESIDE.field(_MALFORMED).type)
        return columns

    def _take(self, chunk: Chunk, first: int, last: int) -> None:
        """Rows that are all plain at once, others in halves, and small parts row by row."""
        plain = self.reader.plain
        columns = None if plain is None else chunk.columns(first, last)
        found = None if plain is None or columns is None else plain.read(columns)
        if found is not None:
            self._append_plain(found, chunk.raw(first, last))
        elif plain is not None and last - first > _SMALL_ROWS:
            middle = (first + last) // 2
            self._take(chunk, first, middle)
            self._take(chunk, middle, last)
        else:
            for position, raw in enumerate(chunk.raw(first, last), start=first):
                self._append(self.reader.read(chunk.row(position), self.num_rows), raw)

    def _append_plain(self, found: PlainBatch, raws: Sequence[bytes | None]) -> None:
        count = len(found.texts)
        if found.prompt_ids is None:
            self._ids.extend(map(made_id, range(self.num_rows, self.num_rows + count)))
        else:
            self._ids.extend(found.prompt_ids)
        self._texts.extend(found.texts)
        self._raws.extend(raws)
        self._bytes += found.num_bytes + sum(map(len, filter(None, raws)))
        self.num_rows += count
        self.report.count_plain(
            count, num_bytes=found.num_bytes, max_output_tokens=self.reader.default_output_tokens
        )

    def _append(self, made: PromptRow, raw: bytes | None) -> None:
        prompt, row = made.prompt, len(self._ids)
        self._ids.append(prompt.prompt_id)
        self._texts.append(prompt.text)
        self._raws.append(None if made.malformed is not None else raw)
        if made.malformed is not None:
            self._malformed[row] = made.malformed
        error = prompt.error
        rare: dict[str, Any] = {
            "messages": chat_text(prompt),
            "token_ids": prompt.token_ids,
            "sampling": compact_json(made.own_sampling) if made.own_sampling else None,
            "error_code": None if error is None else error.code.value,
            "error_message": None if error is None else error.message,
        }
        for name, value in rare.items():
            if value is not None:
                self._rare[name][row] = value
        num_bytes = len((prompt.text or rare["messages"] or "").encode())
        self._bytes += num_bytes + len(raw or b"") + 4 * len(prompt.token_ids or ())
        self.num_rows += 1
        self.report.count_row(prompt, num_bytes)
