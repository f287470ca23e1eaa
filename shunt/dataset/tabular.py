"""Parquet and CSV."""

# Pyarrow's stubs leave type parameters open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from shunt.dataset.arrow_values import plain_values
from shunt.dataset.files import SourceFile
from shunt.dataset.input_row import InputRow, TableChunk
from shunt.dataset.row_error import RowError, RowErrorCode
from shunt.dataset.utf8 import utf8_stream
from shunt.errors import InputError

CHUNK_ROWS = 4096
CHUNK_BYTES = 8 << 20
_LARGEST_FIELD_BYTES = 64 << 20
_OTHER_DELIMITERS = (";", "\t", "|", ",")


def one_schema(sources: Sequence[SourceFile]) -> pa.Schema:
    """The columns of all files together, by name; types that differ are widened.

    Raises `InputError` for a file that is no Parquet or names a column twice, and for two files
    whose types of a column cannot meet.
    """
    together, first = pa.schema([]), dict[str, SourceFile]()
    for source in sources:
        schema = _schema_of(source).remove_metadata()
        for field in schema:
            one, other = first.setdefault(field.name, source), source
            try:
                met = pa.unify_schemas([together, pa.schema([field])], promote_options="permissive")
            except pa.ArrowException as error:
                kinds = f"{together.field(field.name).type} in {one.uri}, {field.type} in"
                raise InputError(
                    f"column {field.name}: is {kinds} {other.uri}; give it one type in both"
                ) from error
            together = met
    return together


def _schema_of(source: SourceFile) -> pa.Schema:
    with source.open_raw() as raw:
        try:
            schema = pq.ParquetFile(raw).schema_arrow
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{source.uri}: {_unreadable(raw, error)}") from error
    _refuse_repeated(source, schema.names)
    return schema


def read_parquet(
    source: SourceFile,
    wanted: Sequence[str] | None,
    schema: pa.Schema,
    told: Callable[[str], None] = lambda _note: None,
) -> Iterator[TableChunk]:
    """All rows; `columns` holds the wanted ones (None: all), `carried` all those of `schema`.

    `told` gets a sentence for every column whose texts are not all UTF-8. Raises `InputError` when
    the file is no Parquet.
    """
    with source.open_raw() as raw:
        try:
            file = pq.ParquetFile(raw)
            first = 1
            for batch in file.iter_batches(_chunk_rows(file.metadata)):
                table = _as(schema, pa.Table.from_batches([batch]))
                not_utf8 = _not_utf8(table)
                for name in not_utf8:
                    told(
                        f"{source.uri}: column {name}: has text that is not UTF-8; Parquet results "
                        "keep its bytes, JSON results write them as \\xff"
                    )
                names = [n for n in table.column_names if wanted is None or n in wanted]
                rows = [
                    InputRow(f"{source.name}:{number}", columns)
                    for number, columns in enumerate(_dicts(table.select(names)), start=first)
                ]
                first += table.num_rows
                numbers = range(first - len(rows), first)
                yield TableChunk(rows, table, numbers, is_text=not not_utf8)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{source.uri}: {_unreadable(raw, error)}") from error


def _unreadable(raw: IO[bytes], error: Exception) -> str:
    """What a file is that Parquet's reader does not take, and what to do."""
    raw.seek(0)
    head = raw.read(32)
    if not head:
        return "is empty, and no Parquet file"
    if "crypt" in str(error):
        return f"is encrypted Parquet; write it in clear, as shunt takes no keys ({error})"
    for begin, told in _OTHERS.items():
        if head.startswith(begin):
            return told
    return f"is not a readable Parquet file: {error}"


_OTHERS = {
    b"ARROW1": "is an Arrow (Feather) file, and no Parquet; write it as Parquet",
    b"\xff\xff\xff\xff": "is a stream of Arrow, and no Parquet; write it as Parquet",
    b"version https://git-lfs": "is a pointer of Git LFS; fetch the file itself by `git lfs pull`",
}
"""By their first bytes."""


def _as(schema: pa.Schema, table: pa.Table) -> pa.Table:
    """The table with all columns of the schema, null where it has none."""
    columns = [
        table.column(field.name).cast(field.type)
        if field.name in table.column_names
        else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _not_utf8(table: pa.Table) -> list[str]:
    """The columns that hold text that is none."""
    try:
        table.validate(full=True)
    except pa.ArrowInvalid:
        return [name for name in table.column_names if not _is_valid(table.column(name))]
    return []


def _is_valid(column: Any) -> bool:
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _refuse_repeated(source: SourceFile, names: Sequence[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InputError(f"{source.uri}: names a column twice: {', '.join(repeated)}")


def _chunk_rows(metadata: pq.FileMetaData) -> int:
    """Fewer rows at a time where they are long."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    longest = max((g.total_byte_size // max(g.num_rows, 1) for g in groups), default=0)
    return min(CHUNK_ROWS, max(1, CHUNK_BYTES // max(longest, 1)))


def read_csv(source: SourceFile, delimiter: str | None = None) -> Iterator[TableChunk]:
    """All rows, every value as the text that it is in the file; the first line names the columns.

    `delimiter`: None for a comma, or a tab in a `.tsv`. A row with another number of fields becomes
    an error row. Raises `InputError` for a file without a header, with another delimiter as it
    seems, or that is no Unicode text.
    """
    csv.field_size_limit(_LARGEST_FIELD_BYTES)
    with source.open() as raw:
        text = io.TextIOWrapper(utf8_stream(source, raw), encoding="utf-8", newline="")
        # Strictly: a quote that nobody closes would swallow the rows behind it without a word.
        reader = csv.reader(text, strict=True, delimiter=delimiter or source.delimiter)
        began = 1
        try:
            names = next(reader, None)
            if names is None:
                raise InputError(f"{source.uri}: is empty; the first line must name the columns")
            if len(set(names)) != len(names):
                raise InputError(f"{source.uri}: names a column twice: {', '.join(names)}")
            if delimiter is None and len(names) == 1:
                _refuse_other_delimiter(source, names[0])
            rows: list[list[str]] = []
            places: list[int] = []
            num_bytes = 0
            began = reader.line_num + 1
            for fields in reader:
                began = reader.line_num + 1
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
            why = f"is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
            raise InputError(f"{source.uri}: {why}") from error
        except csv.Error as error:
            why = f"the row that begins here is not CSV ({error}); is a quote left open?"
            raise InputError(f"{source.uri}:{began}: {why}") from error


def _refuse_other_delimiter(source: SourceFile, header: str) -> None:
    found = next((sign for sign in _OTHER_DELIMITERS if sign in header), None)
    if found is not None:
        raise InputError(
            f"{source.uri}: has one column, {header!r}; set input.delimiter, to "
            f"{json.dumps(found)} as it seems"
        )


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
        raw = None if error is None else _csv_text(values)
        rows.append(InputRow(place, dict(zip(names, values, strict=False)), raw, error))
    schema = pa.schema([(name, pa.string()) for name in names])
    return TableChunk(rows, pa.table(carried, schema=schema), places)


def _csv_text(values: list[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(values)
    return text.getvalue()


def _dicts(table: pa.Table) -> list[dict[str, object]]:
    if not table.num_columns:
        return [{} for _ in range(table.num_rows)]
    columns = [plain_values(column, "surrogateescape") for column in table.columns]
    names = table.column_names
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
