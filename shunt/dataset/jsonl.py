"""JSON lines, one object each; or one array of objects."""

# Parsed JSON has no types before it is checked.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any

import orjson

from shunt.dataset.files import SourceFile
from shunt.dataset.input_row import InputRow, LineChunk
from shunt.dataset.json_array import elements
from shunt.dataset.json_row import RepeatedKey, all_keys_differ, inside, parse_json, readable
from shunt.dataset.row_error import RowError, RowErrorCode
from shunt.dataset.utf8 import utf8_blocks
from shunt.errors import InputError

CHUNK_ROWS = 4096
MAX_DEPTH = 500
"""Parsers and writers of JSON recurse, and Python ends at about 1000."""


def read_jsonl(source: SourceFile) -> Iterator[LineChunk]:
    """The rows, blank lines skipped; a line that is no JSON object becomes an error row.

    A file that is one array of objects is read by its elements. Raises `InputError` for a file that
    is no text, and for objects that go over several lines.
    """

    def read_row(number: int, line: bytes) -> InputRow:
        return _row(f"{source.name}:{number}", line)

    with source.open() as stream:
        blocks = utf8_blocks(source, stream)
        first = next(blocks, b"")
        blocks = chain([first], blocks)
        parts = _parts_of_array(blocks) if _begins_array(source, first) else _parts_of_lines(blocks)
        for numbers, lines in parts:
            yield LineChunk(lines, numbers, read_row, quick_columns)


def quick_columns(lines: Sequence[bytes]) -> Sequence[Mapping[str, Any]] | None:
    """The columns of lines that one parser can vouch for. Integers over 64 bits are floats here,
    so whoever uses a float asks for the whole row instead. None: ask for the whole rows."""
    if any(map(_may_be_deep, lines)):
        return None
    try:
        rows = list(map(orjson.loads, lines))
    except orjson.JSONDecodeError:
        return None
    if set(map(type, rows)) != {dict} or not all_keys_differ(lines, rows):
        return None
    return rows


_Part = tuple[Sequence[int], Sequence[bytes]]
"""Some lines, and their numbers."""


def _begins_array(source: SourceFile, block: bytes) -> bool:
    """Whether the file is one array. A line that is one, with others behind it, is a bad row."""
    begin = block.lstrip()
    line, _, rest = begin.partition(b"\n")
    if line.strip() == b"{" and rest.lstrip().startswith(b'"'):
        why = "holds an object over several lines; write one object a line (as `jq -c .` does)"
        raise InputError(f"{source.uri}: {why}, or an array of objects")
    if begin[:1] != b"[":
        return False
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        return True
    return not rest.strip()


def _parts_of_array(blocks: Iterable[bytes]) -> Iterator[_Part]:
    found = elements(blocks)
    while some := list(islice(found, CHUNK_ROWS)):
        yield [each.line for each in some], [each.text for each in some]


def _parts_of_lines(blocks: Iterable[bytes]) -> Iterator[_Part]:
    number = 1
    for block in _line_blocks(blocks):
        lines = [line.strip() for line in block]
        for first in range(0, len(lines), CHUNK_ROWS):
            part = lines[first : first + CHUNK_ROWS]
            numbers: Sequence[int] = range(number, number + len(part))
            number += len(part)
            if b"" in part:
                numbers = [n for n, line in zip(numbers, part, strict=True) if line]
                part = [line for line in part if line]
            if part:
                yield numbers, part


def _line_blocks(blocks: Iterable[bytes]) -> Iterator[list[bytes]]:
    """All lines, some megabytes of them at a time; memory stays at that and one line."""
    begun: list[bytes] = []
    """A line that goes on in the next block."""
    for block in blocks:
        lines = block.split(b"\n")
        begun.append(lines[0])
        if len(lines) > 1:
            lines[0], begun = b"".join(begun), [lines.pop()]
            yield lines
    yield [b"".join(begun)]


def _row(place: str, line: bytes) -> InputRow:
    text = line.decode(errors="backslashreplace")
    try:
        columns = parse_json(line)
        if not isinstance(columns, dict):
            why = "is not a JSON object"
        elif _may_be_deep(line) and _is_deep(columns):
            why = f"is nested more than {MAX_DEPTH} levels deep"
        else:
            return InputRow(place, columns, text)
    except RepeatedKey as error:
        why = str(error)
    except ValueError as error:
        why = f"is not JSON: {error}"
    columns = readable(line.decode(errors="replace"))
    return InputRow(place, columns, text, RowError(RowErrorCode.MALFORMED_ROW, f"{place}: {why}"))


def _may_be_deep(line: bytes) -> bool:
    """Nesting takes two brackets a level."""
    return len(line) > 2 * MAX_DEPTH and line.count(b"[") + line.count(b"{") > MAX_DEPTH


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in inside(outer)]
        if not level:
            return False
    return True
