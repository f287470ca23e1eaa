"""Parquet keeps its types, CSV its text; a bad row is an error row."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shunt.dataset import tabular
from shunt.dataset.files import find_files
from shunt.dataset.shard import CARRIED_PREFIX, prompts_of
from shunt.dataset.tabular import one_schema, read_csv, read_parquet
from shunt.errors import InputError
from tests.shunt.dataset.rows import cut, make_job


def csv(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "rows.csv"
    path.write_text(text, encoding="utf-8", newline="")
    return path


def test_csv_values_stay_the_text_that_they_are(tmp_path: Path) -> None:
    path = csv(tmp_path, '\ufeffid,prompt,n\r\n1,"two\r\nlines",007\r\n\r\n2,b,\r\n')
    [table], report = cut(make_job(path))
    assert report.num_error_rows == 0
    assert table.column("prompt_id").to_pylist() == ["1", "2"]
    assert table.column("text").to_pylist() == ["two\r\nlines", "b"]
    assert table.column(CARRIED_PREFIX + "n").to_pylist() == ["007", ""]


def test_a_csv_row_of_another_width_is_an_error_row_at_its_line(tmp_path: Path) -> None:
    [table], report = cut(make_job(csv(tmp_path, 'id,prompt\n1,"a\nb"\n2,b,c\n3\n4,d\n')))
    assert [error.message for error in report.examples] == [
        "rows.csv:4: has 3 fields, the header has 2",
        "rows.csv:5: has 1 fields, the header has 2",
    ]
    assert table.column(CARRIED_PREFIX + "prompt").to_pylist() == ["a\nb", "b", None, "d"]


def test_an_empty_cell_gives_nothing_where_another_column_gives_a_prompt(tmp_path: Path) -> None:
    text = 'prompt,messages,token_ids,sampling\nhi,,,\n,,"[1, 2]","{""max_tokens"": 3}"\n,,,\n'
    job = make_job(csv(tmp_path, text))
    [table], _ = cut(job)
    first, second, third = prompts_of(table, defaults=job.sampling)
    assert first.text == "hi"
    assert (second.token_ids, second.sampling.max_tokens) == ((1, 2), 3)
    assert third.error is not None
    assert third.error.code == "empty_prompt"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty; the first line must name the columns"),
        (b"a,a\n1,2\n", "names a column twice"),
        (b"a\n\xff\n", "is not UTF-8 text"),
    ],
)
def test_a_csv_file_that_cannot_be_used_is_refused(
    tmp_path: Path, data: bytes, message: str
) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(data)
    [source] = find_files(str(path))
    with pytest.raises(InputError, match=message):
        list(read_csv(source))


def test_parquet_lists_and_structs_are_prompts(tmp_path: Path) -> None:
    kind = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    chat = [{"role": "user", "content": "hi"}]
    table = pa.table(
        {
            "messages": pa.array([chat, None], kind),
            "token_ids": pa.array([None, [5]], pa.list_(pa.int64())),
            "sampling": pa.array([{"seed": 1, "n": None}, None]),
            "when": pa.array([0, 1], pa.timestamp("ms")),
        }
    )
    path = tmp_path / "rows.parquet"
    pq.write_table(table, path)
    job = make_job(path)
    [made], report = cut(job)
    assert report.num_error_rows == 0
    first, second = prompts_of(made, defaults=job.sampling)
    assert (first.messages, first.sampling.seed) == (tuple(chat), 1)
    assert second.token_ids == (5,)
    assert made.column(CARRIED_PREFIX + "when").type == pa.timestamp("ms")


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    path.write_bytes(b"PAR1 no PAR1")
    [source] = find_files(str(path))
    with pytest.raises(InputError, match="is not a readable Parquet file"):
        list(read_parquet(source, None, one_schema([source])))


def test_long_rows_are_read_fewer_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tabular, "CHUNK_BYTES", 1000)
    texts = [str(number) * 300 for number in range(10)]
    pq.write_table(pa.table({"prompt": texts}), tmp_path / "rows.parquet")
    path = csv(tmp_path, "prompt\n" + "\n".join(texts))
    [parquet], [lines] = find_files(str(tmp_path / "rows.parquet")), find_files(str(path))
    assert max(len(chunk) for chunk in read_parquet(parquet, None, one_schema([parquet]))) <= 4
    assert max(len(chunk) for chunk in read_csv(lines)) <= 4
