"""A row as a reader hands it on: what the prompt is made of, and what is carried along."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import pyarrow as pa

from shunt.dataset.row_error import RowError


@dataclass(frozen=True, slots=True)
class InputRow:
    """One row. Where it could not be read, `error` says why, and `columns` holds what could be."""

    place: str
    """File and line (or row), for messages."""
    columns: Mapping[str, Any]
    raw: str | None = None
    """The row's own text: JSON where the file is JSON lines; of a table, only of a row that could
    not be read. Bytes that are no UTF-8 are escapes."""
    error: RowError | None = None


class Chunk(Protocol):
    """Some rows of one file in order, with the columns that are carried natively beside them."""

    def of_file(self, file: int) -> "Chunk":
        """The same rows, of that file."""
        ...

    @property
    def file(self) -> int:
        """Which of the dataset's files, from 0."""
        ...

    @property
    def numbers(self) -> Sequence[int]:
        """Where each row is in its file: its line, or the number of its row, from 1."""
        ...

    @property
    def carried(self) -> pa.Table | None:
        """As many rows; None where the raw text carries everything."""
        ...

    def __len__(self) -> int: ...

    def row(self, position: int) -> InputRow:
        """One row, read with all its checks."""
        ...

    def columns(self, first: int, last: int) -> Sequence[Mapping[str, Any]] | None:
        """The columns of rows `first` to `last - 1`, quickly; None where only `row` can tell."""
        ...

    def raw(self, first: int, last: int) -> Sequence[bytes | None]:
        """The rows' own JSON text, where the file is JSON lines."""
        ...

    def first(self, count: int) -> "Chunk":
        """The first `count` rows."""
        ...

    def take(self, positions: Sequence[int]) -> "Chunk":
        """The rows at these positions, ascending."""
        ...


@dataclass(frozen=True, slots=True)
class TableChunk:
    """Rows of a table."""

    rows: Sequence[InputRow]
    carried: pa.Table | None = None
    numbers: Sequence[int] = ()
    file: int = 0
    is_text: bool = True
    """All its texts are UTF-8."""

    def __len__(self) -> int:
        return len(self.rows)

    def row(self, position: int) -> InputRow:
        return self.rows[position]

    def columns(self, first: int, last: int) -> Sequence[Mapping[str, Any]] | None:
        rows = self.rows[first:last]
        if not self.is_text or any(row.error for row in rows):
            return None
        return [row.columns for row in rows]

    def raw(self, first: int, last: int) -> Sequence[bytes | None]:
        return [None] * (last - first)

    def of_file(self, file: int) -> "TableChunk":
        return replace(self, file=file)

    def first(self, count: int) -> "TableChunk":
        carried = None if self.carried is None else self.carried.slice(0, count)
        return replace(self, rows=self.rows[:count], carried=carried, numbers=self.numbers[:count])

    def take(self, positions: Sequence[int]) -> "TableChunk":
        carried = None if self.carried is None else self.carried.take(positions)
        rows, numbers = ([values[p] for p in positions] for values in (self.rows, self.numbers))
        return replace(self, rows=rows, carried=carried, numbers=numbers)


@dataclass(frozen=True, slots=True)
class LineChunk:
    """Lines of a file, each read when it is asked for."""

    lines: Sequence[bytes]
    numbers: Sequence[int]
    """Line numbers from 1."""
    read_row: Callable[[int, bytes], InputRow]
    """Of a line's number and text: with all checks."""
    read_columns: Callable[[Sequence[bytes]], Sequence[Mapping[str, Any]] | None]
    file: int = 0

    @property
    def carried(self) -> pa.Table | None:
        return None

    def __len__(self) -> int:
        return len(self.lines)

    def row(self, position: int) -> InputRow:
        return self.read_row(self.numbers[position], self.lines[position])

    def columns(self, first: int, last: int) -> Sequence[Mapping[str, Any]] | None:
        return self.read_columns(self.lines[first:last])

    def raw(self, first: int, last: int) -> Sequence[bytes | None]:
        return self.lines[first:last]

    def of_file(self, file: int) -> "LineChunk":
        return replace(self, file=file)

    def first(self, count: int) -> "LineChunk":
        return replace(self, lines=self.lines[:count], numbers=self.numbers[:count])

    def take(self, positions: Sequence[int]) -> "LineChunk":
        lines, numbers = ([values[p] for p in positions] for values in (self.lines, self.numbers))
        return replace(self, lines=lines, numbers=numbers)
