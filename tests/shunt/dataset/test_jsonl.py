"""Every line of a JSON lines file becomes a row, or an error row that says where."""

import gzip
from pathlib import Path

import pytest
import zstandard

from shunt.dataset import utf8
from shunt.dataset.files import find_files
from shunt.dataset.input_row import InputRow
from shunt.dataset.jsonl import MAX_DEPTH, read_jsonl
from shunt.dataset.row_error import RowErrorCode
from shunt.errors import InputError


def _rows(path: Path) -> list[InputRow]:
    [source] = find_files(str(path))
    return [chunk.row(n) for chunk in read_jsonl(source) for n in range(len(chunk))]


def _written(tmp_path: Path, data: bytes) -> list[InputRow]:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(data)
    return _rows(path)


def test_mark_line_ends_and_blank_lines_are_no_part_of_rows(tmp_path: Path) -> None:
    rows = _written(tmp_path, b'\xef\xbb\xbf{"a": 1}\r\n\r\n{"a": 2}')
    assert [row.columns for row in rows] == [{"a": 1}, {"a": 2}]
    assert [row.place for row in rows] == ["rows.jsonl:1", "rows.jsonl:3"]
    assert rows[0].raw == '{"a": 1}'


@pytest.mark.parametrize(
    "line",
    [
        b'{"a": "\x00"}',
        b'{"a": "\xff"}',
        b'{"a": 1, "b": {"c": 1, "c": 2}}',
        b'{"a": 1, "a" : 2}',
        b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a": 1',
        b"[1]",
        b'{"a": ' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}",
    ],
    ids=["nul", "utf-8", "repeated inside", "repeated", "nesting", "cut", "list", "deep"],
)
def test_a_bad_line_is_one_error_row_with_its_place(tmp_path: Path, line: bytes) -> None:
    good, bad, after = _written(tmp_path, b'{"a": 1}\n' + line + b'\n{"a": 2}\n')
    assert good.error is None
    assert after.error is None
    assert bad.error is not None
    assert bad.error.code == RowErrorCode.MALFORMED_ROW
    assert bad.error.message.startswith("rows.jsonl:2: ")


def test_a_key_that_stands_twice_is_told_by_name(tmp_path: Path) -> None:
    [row] = _written(tmp_path, b'{"id": 7, "x": {"a:": "\\":", "k\\u0065y": 1, "key": 2}}')
    assert row.error is not None
    assert row.error.message == 'rows.jsonl:1: names the key "key" twice'


@pytest.mark.parametrize(
    ("line", "columns"),
    [
        (b'{"id": "a", "prompt": "cut of', {"id": "a"}),
        (b'{"id": "a", "x": "\xff", "n": 1}', {"id": "a", "x": "\ufffd", "n": 1}),
        (b'{"id": 1, "id": 2, "x": 3}', {"x": 3}),
        (b"12", {}),
        (b"{", {}),
        (b'{"id": "a", oops}', {"id": "a"}),
    ],
    ids=["cut", "utf-8", "repeated", "number", "brace", "word"],
)
def test_what_can_be_read_of_a_bad_line_is_kept_with_its_text(
    tmp_path: Path, line: bytes, columns: dict[str, object]
) -> None:
    [row] = _written(tmp_path, line)
    assert row.error is not None
    assert row.columns == columns
    assert row.raw == line.decode(errors="backslashreplace")


def test_constants_and_half_surrogates_are_read(tmp_path: Path) -> None:
    [row] = _written(tmp_path, b'{"a": -Infinity, "b": "\\ud800"}')
    assert (row.error, row.columns) == (None, {"a": float("-inf"), "b": "\ud800"})


def test_integers_of_any_size_and_huge_lines_are_read_whole(tmp_path: Path) -> None:
    text = "x" * (9 << 20)
    number, huge = _written(tmp_path, b'{"a": %d}\n{"a": "%s"}' % (10**40, text.encode()))
    assert number.columns == {"a": 10**40}
    assert huge.columns == {"a": text}


def test_many_brackets_that_are_not_deep_are_a_good_row(tmp_path: Path) -> None:
    nested = b"[" * (MAX_DEPTH - 2) + b"]" * (MAX_DEPTH - 2)
    rows = _written(tmp_path, b'{"a": "' + b"[" * 5000 + b'"}\n{"a": ' + nested + b"}")
    assert [row.error for row in rows] == [None, None]


def test_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    assert _written(tmp_path, b"") == []


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_archives_are_read_and_cut_ones_refused(tmp_path: Path, suffix: str) -> None:
    data = b"".join(b'{"a": %d}\n' % number for number in range(20_000))
    packed = gzip.compress(data) if suffix == ".gz" else zstandard.compress(data)
    path = tmp_path / f"rows.jsonl{suffix}"
    path.write_bytes(packed)
    assert len(_rows(path)) == 20_000
    # Cut in the middle; and with a first block that is none.
    for damaged in (packed[: len(packed) // 2], packed[:10] + b"\xff" * 100 + packed[110:]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="damaged or cut"):
            _rows(path)


def test_what_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file is in it"):
        find_files(str(tmp_path))
    with pytest.raises(InputError, match="no such file"):
        find_files(str(tmp_path / "rows.jsonl"))
    with pytest.raises(InputError, match="no file matches"):
        find_files(str(tmp_path / "*.jsonl"))


ARRAY = b'[ {"a": "]\\",{"},\n  {"a":\n 2}, 5 ]\n'


@pytest.mark.parametrize("block_bytes", [1, 7, 4 << 20])
def test_an_array_is_read_by_its_elements(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int
) -> None:
    monkeypatch.setattr(utf8, "BLOCK_BYTES", block_bytes)
    first, second, third = _written(tmp_path, ARRAY)
    assert (first.columns, second.columns) == ({"a": ']",{'}, {"a": 2})
    assert [row.place for row in (first, second, third)] == [
        *("rows.jsonl:1", "rows.jsonl:2", "rows.jsonl:3")
    ]
    assert second.raw == '{"a":  2}'
    assert third.error is not None


def test_an_array_that_was_cut_ends_in_a_bad_row(tmp_path: Path) -> None:
    first, second = _written(tmp_path, ARRAY[:-8])
    assert first.error is None
    assert second.error is not None


def test_lines_of_null_bytes_are_bad_rows_and_no_encoding(tmp_path: Path) -> None:
    rows = _written(tmp_path, b"\0\n\0\n")
    assert [row.error is not None for row in rows] == [True, True]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
def test_text_with_a_byte_order_mark_is_read_in_its_encoding(tmp_path: Path, encoding: str) -> None:
    rows = _written(tmp_path, '{"a": "é\U0001f600"}\r\n{"a": 2}\r\n'.encode(encoding))
    assert [row.columns for row in rows] == [{"a": "é\U0001f600"}, {"a": 2}]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ('{"a": 1}\n'.encode("utf-16-le"), "UTF-16 or UTF-32 without a byte order mark"),
        ('{"a": 1}\n'.encode("utf-16-be"), "UTF-16 or UTF-32 without a byte order mark"),
        ('{"a": 1}\n'.encode("utf-32-be"), "UTF-16 or UTF-32 without a byte order mark"),
        (b'{\n  "a": 1\n}\n', "an object over several lines"),
        (b"PAR1\x15\x04", "is a Parquet file"),
        (gzip.compress(b"{}"), "should end in .gz"),
        (b"\xff\xfe{\x00\x00\xd8", "is not whole UTF-16"),
    ],
)
def test_a_file_that_is_no_lines_is_one_sentence(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        _written(tmp_path, data)
