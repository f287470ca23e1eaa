"""Files of all kinds through a whole run: every row ends once, or one sentence says why not."""

import json
import random
import struct
from base64 import b64decode
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shunt import keys
from shunt.checkpoint.generation import Finish, Generation
from shunt.checkpoint.lease import LeaseObserver
from shunt.checkpoint.log import CheckpointLog
from shunt.checkpoint.progress import replay
from shunt.checkpoint.segment import Gain
from shunt.dataset.preflight import PreflightReport
from shunt.dataset.rendering import renderer_for
from shunt.dataset.shard import read_shard
from shunt.errors import ShuntError
from shunt.job.job import Job
from shunt.run.collect import collect
from shunt.run.prepare import prepare
from shunt.run.verify import verify
from shunt.testing.memory_store import MemoryStore

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RENDERER = renderer_for("fake", revision=None, max_model_len=None, fake=True)


def rows_of(path: Path | str, output: Path, **given: Any) -> list[dict[str, Any]]:
    """The result rows of a run over the file, after both files and their counts were compared."""
    sections = {"input": {"path": str(path), **given}, "output": {"path": str(output)}}
    model = {"path": "fake", "engine_kind": "fake"}
    job = Job.model_validate({"name": "odd", "model": model, "reuse": False, **sections})
    store = MemoryStore()
    reports: list[PreflightReport] = []
    manifest = prepare(job, store, RENDERER, now=NOW, saw=reports.append)
    observer = LeaseObserver(store, manifest.run_id, 30.0, lambda: 0.0)
    for entry in manifest.shards:
        data = store.get(keys.shard_prompts(manifest.run_id, entry.shard_id))
        lease = observer.acquire(entry.shard_id, "me")
        assert lease is not None
        answer = Generation((1,), num_prompt_tokens=1, finish=Finish("stop", None, "t"))
        good = [p for p in read_shard(data, defaults=job.sampling) if p.error is None]
        log = CheckpointLog(lease, replay(store, manifest.run_id, entry.shard_id))
        log.append([Gain(prompt.index, 0, 0, answer) for prompt in good])
    summary = collect(store, manifest, now=NOW)
    assert verify(store, manifest).problems == []
    assert summary.num_rows == reports[0].num_rows == summary.num_ok + summary.num_errors
    text = (Path(summary.directory) / "results.jsonl").read_bytes().decode()
    rows = [json.loads(line, parse_constant=pytest.fail) for line in text.split("\n")[:-1]]
    table = pq.ParquetFile(Path(summary.directory) / "results.parquet")
    assert len(rows) == table.metadata.num_rows == summary.num_rows
    return rows


def not_utf8(data: bytes) -> pa.Array:
    """Two texts, the second one `x`, of bytes that nobody looks at."""
    ends = pa.py_buffer(struct.pack("3i", 0, len(data), len(data) + 1))
    return pa.StringArray.from_buffers(2, ends, pa.py_buffer(data + b"x"))


COLUMNS: dict[str, pa.Array] = {
    "text": not_utf8(b"a\xffb"),
    "list of text": pa.ListArray.from_arrays(pa.array([0, 1, 2], pa.int32()), not_utf8(b"\xff")),
    "struct of text": pa.StructArray.from_arrays([not_utf8(b"\xff")], ["s"]),
    "dictionary": pa.DictionaryArray.from_arrays(pa.array([0, 1], pa.int32()), not_utf8(b"\xff")),
    "map": pa.array([[("a", 1)], [("b", None)]], pa.map_(pa.string(), pa.int64())),
    "map of integers": pa.array([[(1, 1)], [(2, None)]], pa.map_(pa.int64(), pa.int64())),
    "decimal": pa.array([Decimal("1.50"), None]),
    "decimal256": pa.array([Decimal("1" * 60), None], pa.decimal256(70, 2)),
    "binary": pa.array([b"\xff", b"ok"]),
    "fixed binary": pa.array([b"1234", None], pa.binary(4)),
    "uuid": pa.array([b"0123456789abcdef"] * 2, pa.uuid()),
    "date": pa.array([date(2024, 1, 1), None]),
    "far date": pa.array([2**30, 1], pa.int32()).cast(pa.date32()),
    "time": pa.array([1, 2], pa.time64("ns")),
    "duration": pa.array([1, 2], pa.duration("ns")),
    "list of durations": pa.array([[1], [2]], pa.list_(pa.duration("ns"))),
    "list of instants": pa.array([[1], [2]], pa.list_(pa.timestamp("ns"))),
    "map of instants": pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.timestamp("ns"))),
    "time zone": pa.array([1, 2], pa.timestamp("us", "Mars/Olympus")),
    "null": pa.nulls(2),
    "half": pa.array([1.0, 2.0], pa.float32()).cast(pa.float16()),
    "nan": pa.array([float("nan"), float("inf")]),
    "list of nan": pa.array([[float("nan")], None]),
    "unsigned": pa.array([2**64 - 1, 0], pa.uint64()),
    "nested": pa.array([[[{"a": [1]}]], None]),
    "fixed list": pa.array([[1, 2], [3, 4]], pa.list_(pa.int32(), 2)),
    "view": pa.array(["a", "b"], pa.string_view()),
    "json": pa.array(['{"a":1}', None], pa.json_()),
}


@pytest.mark.parametrize("role", ["c", "prompt", "id", "messages", "token_ids", "sampling"])
@pytest.mark.parametrize("kind", COLUMNS)
def test_a_column_of_any_type_in_any_role(tmp_path: Path, kind: str, role: str) -> None:
    columns = {"prompt": pa.array(["hi", "ho"]), role: COLUMNS[kind]}
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    rows = rows_of(tmp_path / "x.parquet", tmp_path / "out")
    if role == "c":
        assert [row["error_code"] for row in rows] == [None, None]


def test_bytes_that_are_no_text_are_carried_and_never_a_prompt(tmp_path: Path) -> None:
    columns = {"prompt": pa.array(["hi", "ho"]), "c": COLUMNS["text"], "b": COLUMNS["binary"]}
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    first, second = rows_of(tmp_path / "x.parquet", tmp_path / "out")
    assert (first["c"], second["c"]) == ("a\\xffb", "x")
    assert b64decode(first["b"]) == b"\xff"
    pq.write_table(pa.table({"prompt": COLUMNS["text"]}), tmp_path / "y.parquet")
    first, second = rows_of(tmp_path / "y.parquet", tmp_path / "out")
    assert (first["error_code"], second["error_code"]) == ("malformed_row", None)


def test_folders_name_columns_and_hidden_files_are_left_out(tmp_path: Path) -> None:
    for day in ("2024-01-01", "__HIVE_DEFAULT_PARTITION__"):
        folder = tmp_path / "in" / f"date={day}" / "x%20y=1"
        folder.mkdir(parents=True)
        (folder / "p.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b", "date": "own"}\n')
    (tmp_path / "in" / "_SUCCESS").write_text("")
    rows = rows_of(tmp_path / "in", tmp_path / "out", template="{{ date }}: {{ prompt }}")
    assert [(row["date"], row["x y"]) for row in rows] == [
        ("2024-01-01", "1"), ("own", "1"), (None, "1"), ("own", "1")
    ]  # fmt: skip
    assert rows == rows_of(tmp_path / "in" / "*" / "*" / "*", tmp_path / "out", template="x")


def test_partitions_of_tables_are_columns_of_every_file(tmp_path: Path) -> None:
    for folder in ("in/k=1", "in"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"prompt": ["a"]}), tmp_path / folder / "p.parquet")
    assert [row["k"] for row in rows_of(tmp_path / "in", tmp_path / "out")] == ["1", None]


def test_tables_in_text_need_not_have_the_same_columns(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,prompt\n" + "".join(f"{n},a\n" for n in range(300)))
    (tmp_path / "b.csv").write_text("prompt,id,x\n" + "".join(f"b,k{n},3\n" for n in range(300)))
    rows = rows_of(tmp_path / "*.csv", tmp_path / "out")
    assert (rows[0]["id"], rows[599]["id"], rows[599]["x"]) == ("0", "k299", "3")


@pytest.mark.parametrize("number", range(80))
def test_damaged_files_end_in_rows_or_in_one_sentence(tmp_path: Path, number: int) -> None:
    draw = random.Random(number)
    path = tmp_path / f"x.{('jsonl', 'csv', 'parquet', 'json')[number % 4]}"
    path.write_bytes(_damaged(draw, _whole(path.suffix, tmp_path)))
    try:
        rows_of(path, tmp_path / "out")
        told = str(path)
    except ShuntError as error:
        told = str(error)
    assert str(path) in told


def _whole(suffix: str, folder: Path) -> bytes:
    rows = [{"id": n, "prompt": f'say "{n}" é', "x": [{"k": n + 0.5}]} for n in range(40)]
    if suffix == ".json":
        return json.dumps(rows, indent=1).encode()
    if suffix == ".jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    if suffix == ".csv":
        return "".join(f'{n},"say ""{n}"", é",\n' for n in range(-1, 40)).encode()
    pq.write_table(pa.Table.from_pylist(rows), folder / "whole")
    return (folder / "whole").read_bytes()


def _damaged(draw: random.Random, data: bytes) -> bytes:
    damaged = bytearray(data)
    for _ in range(draw.randint(1, 8)):
        at = draw.randrange(len(damaged))
        kind = draw.randrange(3)
        if kind == 0:
            damaged[at] = draw.choice(b'"{}[],:\n\\\x00\xff N')
        elif kind == 1:
            del damaged[at : at + draw.randint(1, 40)]
        else:
            damaged[at:at] = draw.choice([b'"id": 1, ', b"NaN", b"\\ud800", b"\xed\xa0\x80", b"\r"])
    return bytes(damaged)
