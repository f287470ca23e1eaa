"""Parquet files that do not agree, with each other or with Python."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

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
