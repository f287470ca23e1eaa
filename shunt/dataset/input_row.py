"""A row as a reader hands it on: what the prompt is made of, and what is carried along."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from shunt.row_error import RowError


@dataclass(frozen=True, slots=True)
class InputRow:
    """One row. `columns` is empty where the row could not be read, and `error` says why."""

    place: str
    """File and line (or row), for messages."""
    columns: Mapping[str, Any]
    raw: str | None = None
    """The row's own JSON text, where the file is JSON lines."""
    error: RowError | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows in input order, with the columns that are carried natively beside them."""

    rows: list[InputRow]
    carried: pa.Table | None = None
    """As many rows; None where the raw text carries everything."""

    def first(self, count: int) -> "Chunk":
        """The first `count` rows."""
        carried = None if self.carried is None else self.carried.slice(0, count)
        return Chunk(self.rows[:count], carried)
