"""JSON lines, one object each."""

# Parsed JSON has no types before it is checked.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

import json
import re
from collections.abc import Iterator
from typing import IO, Any, NoReturn

import orjson

from shunt.dataset.files import SourceFile
from shunt.dataset.input_row import Chunk, InputRow
from shunt.row_error import RowError, RowErrorCode

CHUNK_ROWS = 4096
_MANY_DIGITS = re.compile(rb"[0-9]{19}")  # what may not fit 64 bits
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_jsonl(source: SourceFile) -> Iterator[Chunk]:
    """The rows, blank lines skipped; a line that is no JSON object becomes an error row."""
    with source.open() as stream:
        rows: list[InputRow] = []
        for number, line in _lines(stream):
            rows.append(_row(f"{source.name}:{number}", line))
            if len(rows) == CHUNK_ROWS:
                yield Chunk(rows)
                rows = []
        if rows:
            yield Chunk(rows)


def _lines(stream: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    for number, line in enumerate(stream, start=1):
        if number == 1:
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if stripped := line.strip():
            yield number, stripped


def _row(place: str, line: bytes) -> InputRow:
    try:
        columns = parse_json(line)
    except ValueError as error:
        return InputRow(place, {}, None, _malformed(place, f"is not JSON: {error}"))
    if not isinstance(columns, dict):
        return InputRow(place, {}, None, _malformed(place, "is not a JSON object"))
    return InputRow(place, columns, line.decode())


def parse_json(data: bytes) -> Any:
    """Strict JSON, integers of any size. Raises `ValueError`, for NaN and bad UTF-8 too."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        return _parse_big_integers(data.decode())
    return _parse_big_integers(data.decode()) if _MANY_DIGITS.search(data) else value


def _parse_big_integers(text: str) -> Any:
    """The same with integers over 64 bits, which orjson refuses or makes floats of."""
    try:
        value = json.loads(text, parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if "\\u" in text:  # json takes half of a surrogate pair, which no UTF-8 file can hold
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _malformed(place: str, why: str) -> RowError:
    return RowError(RowErrorCode.MALFORMED_ROW, f"{place}: {why}")
