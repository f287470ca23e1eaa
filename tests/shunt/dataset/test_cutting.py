"""Rows that are read many at a time become what they become when each is looked at."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shunt.dataset import cutting, jsonl, utf8
from shunt.dataset.shard import CARRIED_PREFIX, SCHEMA
from tests.shunt.dataset.rows import CONTEXT_TOKENS, cut, make_job

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=8)
)
prompts = st.one_of(scalars, st.sampled_from(["", " ", "\x1c", "hi", "é" * 200, "x" * 300]))
rows = st.fixed_dictionaries(
    {},
    optional={
        "id": scalars,
        "custom_id": scalars,
        "prompt": prompts,
        "messages": st.sampled_from([None, [], [{"role": "user", "content": "hi"}]]),
        "token_ids": st.sampled_from([None, [1, 2], [-1], [2**31]]),
        "sampling": st.sampled_from([None, {}, {"max_tokens": 3}, {"max_tokens": 0}, ""]),
        "other": scalars,
    },
)
lines = st.one_of(
    rows.map(lambda row: json.dumps(row).encode()),
    st.sampled_from(
        [b"", b"  ", b"[]", b"{", b'{"a": NaN}', b'{"prompt": "a", "prompt": 1}', b"\x00",
         b'{"prompt": "\xff"}', b'{"prompt": "\\ud800"}', b'{"id": -0, "prompt": "p"}',
         b'{"id": 123456789012345678901234567890, "prompt": "p"}\r', b'\xef\xbb\xbf{"prompt":"b"}',
         b'{"prompt": "p", "a": ' + b"[" * 600 + b"]" * 600 + b"}"]
    ),
    st.just(b'{"id": "plain", "prompt": "most rows are like this"}'),
)  # fmt: skip


@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    found=st.lists(lines, min_size=1, max_size=30),
    shard_prompts=st.integers(1, 9),
    needs_id=st.booleans(),
)
def test_plain_rows_become_what_close_looking_makes_of_them(
    tmp_path: Path, found: list[bytes], shard_prompts: int, needs_id: bool
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n".join(found))
    columns = {"columns": {"id": "id"}} if needs_id else {}
    job = make_job(path, shard_prompts=shard_prompts, input=columns | {"format": "jsonl"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cutting, "_SMALL_ROWS", 2)
        quick, quick_report = cut(job)
    close, close_report = cut(job, plain=False)
    assert [table.to_pydict() for table in quick] == [table.to_pydict() for table in close]
    assert quick_report == close_report


def test_most_rows_are_not_looked_at_closely(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    read_row = jsonl._row  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(
        jsonl, "_row", lambda place, line: looked.append(1) or read_row(place, line)
    )
    path = tmp_path / "rows.jsonl"
    odd = '{"id": "odd", "prompt": "p", "sampling": {"max_tokens": 3}}'
    plain = [f'{{"id": {number}, "prompt": "p"}}' for number in range(2000)]
    path.write_text("\n".join([*plain[:777], odd, *plain[777:]]))
    [table], _ = cut(make_job(path, shard_prompts=5000, input={"format": "jsonl"}))
    assert table.num_rows == 2001
    assert table.column("sampling").to_pylist()[777] == '{"max_tokens":3}'
    assert len(looked) <= cutting._SMALL_ROWS  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize("block_bytes", [1, 7, 64, 1 << 20])
def test_where_blocks_end_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int
) -> None:
    monkeypatch.setattr(utf8, "BLOCK_BYTES", block_bytes)
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"prompt": "one"}\r\n\n  \n{bad\n{"prompt": "two"}')
    [table], report = cut(make_job(path))
    assert table.column("text").to_pylist() == ["one", None, "two"]
    assert [error.message[:12] for error in report.examples] == ["rows.jsonl:4"]


def test_shards_have_their_number_of_rows_and_columns_of_the_file(tmp_path: Path) -> None:
    table = pa.table({"prompt": [f"p{n}" for n in range(10)], "n": pa.array(range(10), pa.int8())})
    pq.write_table(table, tmp_path / "a.parquet")
    pq.write_table(table, tmp_path / "b.parquet")
    tables, _ = cut(make_job(tmp_path / "*.parquet", shard_prompts=8))
    assert [t.num_rows for t in tables] == [8, 8, 4]
    carried = pa.concat_tables(tables)
    assert carried.column("index").to_pylist() == list(range(20))
    assert carried.column(CARRIED_PREFIX + "n").type == pa.int8()
    assert carried.column(CARRIED_PREFIX + "n").to_pylist() == [*range(10), *range(10)]
    assert carried.column_names[: len(SCHEMA)] == SCHEMA.names


def test_long_rows_cut_a_shard_sooner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutting, "MAX_SHARD_BYTES", 1000)
    monkeypatch.setattr(jsonl, "CHUNK_ROWS", 4)
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": "x" * 200}) for _ in range(10)))
    tables, _ = cut(make_job(path))
    assert [table.num_rows for table in tables] == [4, 4, 2]


@pytest.mark.parametrize(
    ("name", "given_sampling"),
    [("adapter", {"adapter": "none"}), ("schema", {"structured_outputs": {"regex": "("}})],
)
def test_defaults_that_no_row_can_have_make_every_row_bad(
    tmp_path: Path, name: str, given_sampling: dict[str, Any]
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "one"}\n{"prompt": "two"}\n')
    _, report = cut(make_job(path, sampling=given_sampling))
    assert report.num_error_rows == 2
    assert all(name in error.message or "regex" in error.message for error in report.examples)


def test_only_prompts_that_may_be_too_long_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    texts = ["x" * (CONTEXT_TOKENS - 1), "x" * CONTEXT_TOKENS, "é" * (CONTEXT_TOKENS // 2)]
    path.write_text("\n".join(json.dumps({"prompt": text}) for text in texts))
    _, report = cut(make_job(path))
    places = [(error.message.split(": ")[0], error.code.value) for error in report.examples]
    assert places == [("rows.jsonl:2", "context_length"), ("rows.jsonl:3", "context_length")]
