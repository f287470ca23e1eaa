"""`results.jsonl`: the input rows, each with what was generated."""

# Pyarrow's stubs leave type parameters open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

import base64
import json
import math
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, cast

import pyarrow as pa

from shunt.dataset.shard import CARRIED_PREFIX
from shunt.results.columns import AddedColumns
from shunt.results.outcome import ShardOutcomes


def json_lines(shard: ShardOutcomes, added: AddedColumns) -> Iterator[str]:
    """One line per prompt, without its line end.

    A JSONL input row is carried as the very text that it was, so nothing of it is lost in a round
    through a parser; a row that was no JSON object is carried by its error alone.
    """
    carried = list(_carried(shard))
    for row, outcome in zip(carried, shard.outcomes, strict=True):
        yield _with(row, added.values(outcome))


def input_columns(shard: ShardOutcomes) -> set[str]:
    """Names of the columns that the shard's rows carry."""
    names = {
        name.removeprefix(CARRIED_PREFIX)
        for name in shard.table.column_names
        if name.startswith(CARRIED_PREFIX)
    }
    for raw in shard.table.column("row").to_pylist():
        if raw is not None:
            names |= json.loads(raw).keys()
    return names


def carried_rows(shard: ShardOutcomes) -> list[dict[str, Any]]:
    """The input columns of each row as plain values."""
    return [json.loads(text) for text in _carried(shard)]


def _carried(shard: ShardOutcomes) -> Iterator[str]:
    table = shard.table
    native = [name for name in table.column_names if name.startswith(CARRIED_PREFIX)]
    if not native:
        for raw in table.column("row").to_pylist():
            yield raw or "{}"
        return
    columns = {name.removeprefix(CARRIED_PREFIX): _values(table.column(name)) for name in native}
    for row in zip(*columns.values(), strict=True):
        named = dict(zip(columns, row, strict=True))
        yield json.dumps(_finite(named), ensure_ascii=False, default=_plain, allow_nan=False)


def _values(column: Any) -> list[Any]:
    """As Python has them; as exact text where it cannot: nanoseconds, years before 1 and after
    9999, time zones that are unknown here."""
    try:
        return column.to_pylist()
    except (ArithmeticError, ValueError, KeyError, pa.ArrowException):
        pass  # told as text below
    try:
        return column.cast(pa.string()).to_pylist()
    except pa.ArrowException:
        kind = column.type
        return [None if not v.is_valid else f"{v.value} {kind}" for v in column]


def _with(row: str, added: Mapping[str, Any]) -> str:
    """Our columns behind the row's own, textually."""
    ours = json.dumps(added, ensure_ascii=False, separators=(", ", ": "))
    body = row.rstrip().removesuffix("}").rstrip()
    return f"{body}{'' if body.endswith('{') else ', '}{ours[1:]}"


def _finite(value: Any) -> Any:
    """NaN and infinities become null: JSON has no word for them. Parquet keeps them."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        entries = cast("dict[str, Any]", value)
        return {name: _finite(item) for name, item in entries.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in cast("list[Any]", value)]
    return value


def _plain(value: Any) -> str:
    """Types of Parquet that JSON has no word for."""
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Decimal):
        return str(value)
    return str(value)
