"""Columns that stand in the names of folders: `date=2026-01-01/part.parquet`, as Hive has it."""

import json
from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import unquote

import pyarrow as pa

from shunt.dataset.input_row import Chunk, LineChunk, TableChunk
from shunt.dataset.json_row import members

_NULL = "__HIVE_DEFAULT_PARTITION__"

Partitions = Mapping[str, str | None]
"""Text by the name of the column."""


def partitions_of(folders: list[str]) -> Partitions:
    """What the names of these folders say."""
    pairs = (folder.partition("=") for folder in folders if "=" in folder)
    return {unquote(key): None if value == _NULL else unquote(value) for key, _, value in pairs}


def with_partitions(chunk: Chunk, partitions: Partitions) -> Chunk:
    """The rows with these columns behind their own; a column that a row has itself stays."""
    if not partitions:
        return chunk
    if isinstance(chunk, LineChunk):
        return replace(chunk, lines=[_line(line, partitions) for line in chunk.lines])
    assert isinstance(chunk, TableChunk)
    rows = [replace(row, columns={**partitions, **row.columns}) for row in chunk.rows]
    carried = chunk.carried
    if carried is not None:
        for name in sorted(partitions.keys() - set(carried.column_names)):
            values = pa.array([partitions[name]] * carried.num_rows, pa.string())
            carried = carried.append_column(name, values)
    return replace(chunk, rows=rows, carried=carried)


def _line(line: bytes, partitions: Partitions) -> bytes:
    if not line.endswith(b"}"):
        return line
    added = partitions
    if any(json.dumps(name).encode() in line for name in partitions):
        own = {member.key for member in members(line.decode(errors="replace"))}
        added = {name: value for name, value in partitions.items() if name not in own}
    if not added:
        return line
    body = line[:-1].rstrip()
    text = json.dumps(added, ensure_ascii=False).encode()
    return body + (b"" if body.endswith(b"{") else b", ") + text[1:]
