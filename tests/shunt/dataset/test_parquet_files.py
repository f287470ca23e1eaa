"""Parquet files that do not agree, with each other or with Python."""

from base64 import b64encode
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import feather
from pyarrow.parquet import encryption

from shunt.errors import InputError
from tests.shunt.dataset.rows import cut, make_job

CASES = Path(__file__).parents[2] / "cases"


def write(path: Path, **columns: pa.Array) -> None:
    pq.write_table(pa.table(columns), path)


def test_two_columns_of_one_name_are_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"dupcol\.parquet: names a column twice: x"):
        cut(make_job(CASES / "dupcol.parquet"))


@pytest.mark.parametrize(("folder", "column"), [("two", "a"), ("twoid", "id")])
def test_types_that_cannot_meet_are_told_with_both_files(folder: str, column: str) -> None:
    with pytest.raises(InputError, match=rf"column {column}: .*1\.parquet.*2\.parquet"):
        cut(make_job(CASES / folder / "*.parquet"))


def test_columns_are_those_of_all_files_and_null_where_absent(tmp_path: Path) -> None:
    write(tmp_path / "1.parquet", prompt=pa.array(["a"]), n=pa.array([None], pa.null()))
    write(tmp_path / "2.parquet", m=pa.array([1.5]), n=pa.array([7]), prompt=pa.array(["b"]))
    tables, _ = cut(make_job(tmp_path / "*.parquet"))
    rows = pa.concat_tables(tables).to_pylist()
    assert [row["column.n"] for row in rows] == [None, 7]
    assert [row["column.m"] for row in rows] == [None, 1.5]
    assert [row["text"] for row in rows] == ["a", "b"]


def test_a_quote_that_nobody_closes_is_refused_where_its_row_begins(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('id,prompt\n1,a\n2,"b\n3,c\n4,d\n')
    with pytest.raises(InputError, match=r"rows\.csv:3: .*quote"):
        cut(make_job(path))


class _Keys(encryption.KmsClient):
    """Wraps a key in nothing."""

    def __init__(self, _config: object) -> None:
        super().__init__()

    def wrap_key(self, key_bytes: bytes, master_key_identifier: str) -> str:  # noqa: ARG002
        return b64encode(key_bytes).decode()


def _encrypted(path: Path, table: pa.Table, *, plain_footer: bool) -> None:
    config = encryption.EncryptionConfiguration(
        footer_key="f", column_keys={"c": ["prompt"]}, plaintext_footer=plain_footer
    )
    properties = encryption.CryptoFactory(_Keys).file_encryption_properties(
        encryption.KmsConnectionConfig(), config
    )
    with pq.ParquetWriter(path, table.schema, encryption_properties=properties) as writer:
        writer.write_table(table)


def _stream(path: Path, table: pa.Table) -> None:
    with pa.ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table)


@pytest.mark.parametrize(
    ("write", "told"),
    [
        (partial(_encrypted, plain_footer=False), "is encrypted Parquet; write it in clear"),
        (partial(_encrypted, plain_footer=True), "is encrypted Parquet; write it in clear"),
        (lambda path, table: feather.write_feather(table, path), r"is an Arrow \(Feather\) file"),
        (_stream, "is a stream of Arrow, and no Parquet; write it as Parquet"),
        (lambda path, _: path.touch(), "is empty, and no Parquet file"),
        (lambda path, _: path.write_text("version https://git-lfs.github.com/spec/v1"), "git lfs"),
        (lambda path, _: path.write_text("<html>"), "is not a readable Parquet file"),
    ],
)
def test_a_file_that_is_no_parquet_is_told_what_it_is(
    tmp_path: Path, write: Callable[[Path, pa.Table], object], told: str
) -> None:
    path = tmp_path / "in.parquet"
    write(path, pa.table({"prompt": ["one", "two"]}))
    with pytest.raises(InputError, match=told):
        cut(make_job(str(path)))
