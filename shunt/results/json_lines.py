"""`results.jsonl`: the input rows, each with what was generated."""

# Pyarrow's stubs leave type parameters open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, cast

from shunt.dataset.arrow_values import plain_values
from shunt.dataset.json_row import edited, without_constants
from shunt.dataset.prompt_id import plain_text
from shunt.dataset.shard import CARRIED_PREFIX
from shunt.results.columns import AddedColumns
from shunt.results.outcome import ShardOutcomes


def json_lines(shard: ShardOutcomes, added: AddedColumns) -> Iterator[str]:
    """One line per prompt, without its line end.

    A JSONL input row is carried as the very text that it was, so nothing of it is lost in a round
    through a parser: only ids become text, constants that are no JSON become null, and columns that
    have the name of ours get another one. Of a row that could not be read its id is left.
    """
    for row, outcome in zip(_carried(shard), shard.outcomes, strict=True):
        ours = added.values(outcome)
        if added.id in row.columns:
            prompt_id = ours.pop(added.id)
            values = {} if row.columns[added.id] == prompt_id else {added.id: prompt_id}
        else:
            values = {}
        text = row.text
        if values or not added.moved.keys().isdisjoint(row.columns):
            text = edited(text, names=added.moved, values=values)
        yield _with(without_constants(text), ours)


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
    return [row.columns for row in _carried(shard)]


class _Carried(NamedTuple):
    """The input columns of a row: as JSON text, and as plain values."""

    text: str
    columns: dict[str, Any]


def _carried(shard: ShardOutcomes) -> Iterator[_Carried]:
    table = shard.table
    native = [name for name in table.column_names if name.startswith(CARRIED_PREFIX)]
    if not native:
        for raw in table.column("row").to_pylist():
            yield _Carried(raw or "{}", json.loads(raw or "{}"))
        return
    columns = {
        name.removeprefix(CARRIED_PREFIX): plain_values(table.column(name), "backslashreplace")
        for name in native
    }
    for row in zip(*columns.values(), strict=True):
        named = dict(zip(columns, row, strict=True))
        text = json.dumps(_finite(named), ensure_ascii=False, default=plain_text, allow_nan=False)
        yield _Carried(text, named)


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
