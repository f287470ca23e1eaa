"""`results.parquet`: the same rows as a table with one type per column."""

# Pyarrow's stubs leave type parameters open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from shunt.dataset.shard import CARRIED_PREFIX
from shunt.dataset.whole_text import is_whole, whole_text
from shunt.results.columns import ORIGIN, RAW_ROW, REUSE, AddedColumns
from shunt.results.json_lines import carried_rows
from shunt.results.outcome import ShardOutcomes

_LOGPROBS = pa.list_(
    pa.struct(
        [
            ("token_ids", pa.list_(pa.int32())),
            ("logprobs", pa.list_(pa.float32())),
            ("rank", pa.int32()),
        ]
    )
)
ADDED_TYPES: Mapping[str, pa.DataType] = {
    "id": pa.string(),
    "generated_text": pa.string(),
    "finish_reason": pa.string(),
    "num_prompt_tokens": pa.int64(),
    "num_output_tokens": pa.int64(),
    "generations": pa.list_(
        pa.struct(
            [
                ("text", pa.string()),
                ("finish_reason", pa.string()),
                ("num_output_tokens", pa.int64()),
                ("logprobs", _LOGPROBS),
            ]
        )
    ),
    "logprobs": _LOGPROBS,
    "prompt_logprobs": _LOGPROBS,
    "error_code": pa.string(),
    "error_message": pa.string(),
    "resumption": pa.string(),
    "resume_reason": pa.string(),
    "num_resumes": pa.int64(),
    "structure": pa.string(),
    "structure_problem": pa.string(),
    RAW_ROW: pa.string(),
    **dict(zip(ORIGIN, (pa.string(), pa.int64()), strict=True)),
    **dict(zip(REUSE, (pa.string(), pa.int64()), strict=True)),
}
_SCALARS: Mapping[type, pa.DataType] = {
    bool: pa.bool_(),
    int: pa.int64(),
    float: pa.float64(),
    str: pa.string(),
}
_GROUP_ROWS = 20_000
_GROUP_BYTES = 64 << 20
"""In memory, before it is compressed: what one row group of a file has at least, but the last."""
_INT64 = range(-(2**63), 2**63)
_EXACT = range(-(2**53), 2**53 + 1)


class ColumnTypes:
    """Learns one type per column of JSON rows: of scalars of one type, that type (integers and
    floats together are floats, where floats hold the integers exactly); of anything else, and of
    text with half a surrogate, JSON text."""

    def __init__(self) -> None:
        self._types: dict[str, pa.DataType | None] = {}
        self._wide: set[str] = set()
        """Columns with an integer that a float cannot hold exactly."""

    def learn(self, row: Mapping[str, Any]) -> None:
        for name, value in row.items():
            if value is None:
                self._types.setdefault(name, None)
                continue
            found = self._type_of(name, value)
            known = self._types.get(name)
            self._types[name] = found if known is None else _type_of_both(known, found)
            if self._types[name] == pa.float64() and name in self._wide:
                self._types[name] = _JSON_TEXT

    def types(self) -> Mapping[str, pa.DataType]:
        """By column."""
        return {name: kind or pa.string() for name, kind in self._types.items()}

    def is_text(self, name: str) -> bool:
        return (self._types.get(name) or pa.string()) == _JSON_TEXT

    def _type_of(self, name: str, value: Any) -> pa.DataType:
        if type(value) is int and value not in _INT64:
            return _JSON_TEXT
        if type(value) is int and value not in _EXACT:
            self._wide.add(name)
        if type(value) is str and not is_whole(value):
            return _JSON_TEXT
        return _SCALARS.get(type(value), _JSON_TEXT)


_JSON_TEXT = pa.large_string()
"""Stands apart from plain strings, which are not to be quoted as JSON."""


def _type_of_both(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    if one == other:
        return one
    if {one, other} == {pa.int64(), pa.float64()}:
        return pa.float64()
    return _JSON_TEXT


def write_parquet(
    path: Path,
    shards: Iterable[ShardOutcomes],
    added: AddedColumns,
    types: ColumnTypes | pa.Schema,
) -> None:
    """Write all shards. `types` are those of JSON rows, or the columns of tabular inputs."""
    with closing(_Parts(iter([path]))) as parts:
        for group in _row_groups(shards, added, types):
            parts.write(group)


def write_parts(
    directory: Path,
    shards: Iterable[ShardOutcomes],
    added: AddedColumns,
    types: ColumnTypes | pa.Schema,
    *,
    max_bytes: int,
) -> list[Path]:
    """The same in several files of about `max_bytes` at most, in order of their names."""
    paths = (directory / f"part-{number:05d}.parquet" for number in count())
    with closing(_Parts(paths, max_bytes)) as parts:
        for group in _row_groups(shards, added, types):
            parts.write(group)
    return parts.written


class _Parts:
    """Row groups into one file after the other."""

    def __init__(self, paths: Iterator[Path], max_bytes: int | None = None) -> None:
        self._paths = paths
        self._max_bytes = max_bytes
        self._schema = pa.schema([])
        self._writer: pq.ParquetWriter | None = None
        self.written: list[Path] = []

    def write(self, table: pa.Table) -> None:
        if not self.written:
            self._schema = table.schema
        if self._writer is not None and self._max_bytes is not None:
            # What comes has about the size of what is there, by row group.
            size, groups = self.written[-1].stat().st_size, self._groups
            if size * (groups + 1) > self._max_bytes * groups:
                self.close()
        if self._writer is None:
            self.written.append(next(self._paths))
            self._writer = pq.ParquetWriter(self.written[-1], self._schema, compression="zstd")
            self._groups = 0
        self._writer.write_table(table.cast(self._schema))
        self._groups += 1

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _row_groups(
    shards: Iterable[ShardOutcomes], added: AddedColumns, types: ColumnTypes | pa.Schema
) -> Iterator[pa.Table]:
    """Shards together, until a row group is worth reading by itself."""
    waiting: list[pa.Table] = []
    for shard in shards:
        waiting.append(_table(shard, added, types))
        rows, size = sum(t.num_rows for t in waiting), sum(t.nbytes for t in waiting)
        if rows >= _GROUP_ROWS or size >= _GROUP_BYTES:
            yield _as_one(waiting)
            waiting = []
    if waiting:
        yield _as_one(waiting)


def _as_one(tables: list[pa.Table]) -> pa.Table:
    return pa.concat_tables([table.cast(tables[0].schema) for table in tables])


def carried_schema(shard: ShardOutcomes) -> pa.Schema:
    """The columns of a tabular input, as the shard has them."""
    fields = [field for field in shard.table.schema if field.name.startswith(CARRIED_PREFIX)]
    return pa.schema([field.with_name(field.name.removeprefix(CARRIED_PREFIX)) for field in fields])


def _table(shard: ShardOutcomes, added: AddedColumns, types: ColumnTypes | pa.Schema) -> pa.Table:
    is_typed = isinstance(types, ColumnTypes)
    carried = dict(_typed(shard, types) if is_typed else _native(shard, types))
    columns = {added.moved.get(name, name): values for name, values in carried.items()}
    values = [added.values(outcome) for outcome in shard.outcomes]
    for column, name in added.names.items():  # ids take the place of the input's own
        columns[name] = pa.array([row[name] for row in values], ADDED_TYPES[column])
    return pa.table(columns)


def _native(shard: ShardOutcomes, schema: pa.Schema) -> Iterator[tuple[str, Any]]:
    table = shard.table
    for field in schema:
        name = CARRIED_PREFIX + field.name
        if name in table.column_names:
            yield field.name, table.column(name).cast(field.type)
        else:
            yield field.name, pa.nulls(table.num_rows, field.type)


def _typed(shard: ShardOutcomes, types: ColumnTypes) -> Iterator[tuple[str, Any]]:
    rows = carried_rows(shard)
    for name, kind in types.types().items():
        values = [row.get(name) for row in rows]
        if types.is_text(name):
            values = [None if v is None else _json_text(v) for v in values]
        yield whole_text(name), pa.array(values, kind)


def _json_text(value: Any) -> str:
    """Half surrogates stay as escapes."""
    text = json.dumps(value, ensure_ascii=False)
    return text if is_whole(text) else json.dumps(value)
