"""Parquet and CSV."""

# Pyarrow's stubs leave type parameters open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

import csv
import io
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from shunt.dataset.files import SourceFile
from shunt.dataset.input_row import InputRow, TableChunk
from shunt.dataset.row_error import RowError, RowErrorCode
from shunt.errors import InputError

CHUNK_ROWS = 4096
CHUNK_BYTES = 8 << 20
_LARGEST_FIELD_BYTES = 64 << 20


def read_parquet(source: SourceFile, wanted: Sequence[str] | None) -> Iterator[TableChunk]:
    """All rows; `columns` holds the wanted ones (None: all), `carried` all with their types.

    Raises `InputError` when the file is no Parquet.
    """
    with source.open_raw() as raw:
        try:
            file = pq.ParquetFile(raw)
            first = 1
            for batch in file.iter_batches(_chunk_rows(file.metadata)):
                table = pa.Table.from_batches([batch])
                names = [n for n in table.column_names if wanted is None or n in wanted]
                rows = [
                    InputRow(f"{source.name}:{number}", columns)
                    for number, columns in enumerate(_dicts(table.select(names)), start=first)
                ]
                first += table.num_rows
                yield TableChunk(rows, table)
        except pa.ArrowException as error:
            raise InputError(f"{source.uri}: is not a readable Parquet file: {error}") from error


def _chunk_rows(metadata: pq.FileMetaData) -> int:
    """Fewer rows at a time where they are long."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    longest = max((g.total_byte_size // max(g.num_rows, 1) for g in groups), default=0)
    return min(CHUNK_ROWS, max(1, CHUNK_BYTES // max(longest, 1)))


def read_csv(source: SourceFile) -> Iterator[TableChunk]:
    """All rows, every value as the text that it is in the file; the first line names the columns.

    A row with another number of fields becomes an error row. Raises `InputError` for a file
    without a header, or that is not UTF-8.
    """
    csv.field_size_limit(_LARGEST_FIELD_BYTES)
    with source.open() as raw:
        reader = csv.reader(io.TextIOWrapper(raw, encoding="utf-8-sig", newline=""))
        try:
            names = next(reader, None)
            if names is None:
                raise InputError(f"{source.uri}: is empty; the first line must name the columns")
            if len(set(names)) != len(names):
                raise InputError(f"{source.uri}: names a column twice: {', '.join(names)}")
            rows: list[list[str]] = []
            places: list[int] = []
            num_bytes = 0
            for fields in reader:
                if fields:
                    rows.append(fields)
                    places.append(reader.line_num)
                    num_bytes += sum(map(len, fields))
                if len(rows) == CHUNK_ROWS or num_bytes >= CHUNK_BYTES:
                    yield _csv_chunk(source, names, rows, places)
                    rows, places, num_bytes = [], [], 0
            if rows:
                yield _csv_chunk(source, names, rows, places)
        except UnicodeDecodeError as error:
            raise InputError(f"{source.uri}: is not UTF-8 text: {error}") from error
        except csv.Error as error:
            raise InputError(f"{source.uri}:{reader.line_num}: is not CSV: {error}") from error


def _csv_chunk(
    source: SourceFile, names: list[str], fields: list[list[str]], places: list[int]
) -> TableChunk:
    rows: list[InputRow] = []
    carried: dict[str, list[str | None]] = {name: [] for name in names}
    for values, number in zip(fields, places, strict=True):
        place = f"{source.name}:{number}"
        error = None
        if len(values) != len(names):
            why = f"{place}: has {len(values)} fields, the header has {len(names)}"
            error = RowError(RowErrorCode.MALFORMED_ROW, why)
        padded = [*values, *([None] * len(names))][: len(names)]
        for name, value in zip(names, padded, strict=True):
            carried[name].append(value)
        columns = {} if error else dict(zip(names, values, strict=True))
        rows.append(InputRow(place, columns, error=error))
    schema = pa.schema([(name, pa.string()) for name in names])
    return TableChunk(rows, pa.table(carried, schema=schema))


def _dicts(table: pa.Table) -> list[dict[str, object]]:
    return table.to_pylist() if table.num_columns else [{} for _ in range(table.num_rows)]
