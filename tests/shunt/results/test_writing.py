"""Result files of rows that are hard to write."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shunt.checkpoint.generation import Finish, Generation, TokenLogprobs
from shunt.results.columns import ADDED, OF_STRUCTURE, ORIGIN, RAW_ROW, REUSE
from shunt.results.openai_lines import BatchFile
from shunt.results.outcome import Outcome, ShardOutcomes
from shunt.results.parquet import ADDED_TYPES
from shunt.results.writing import learn_layout, write_results

INFINITE = (TokenLogprobs((1, 2), (-0.5, float("-inf")), 1),)


def generated(text: str = "hi", logprobs: tuple[TokenLogprobs, ...] | None = None) -> Generation:
    return Generation((7,), logprobs, num_prompt_tokens=3, finish=Finish("stop", None, text))


def write(
    directory: Path, columns: dict[str, Any], generation: Generation, *, batch: bool = False
) -> None:
    num_rows = len(next(iter(columns.values())))
    ids = [f"p{index}" for index in range(num_rows)]
    base = {"row": pa.nulls(num_rows, pa.string())}
    table = pa.table({"index": range(num_rows), "prompt_id": ids, **base, **columns})
    outcomes = tuple(Outcome(index, name, (generation,)) for index, name in enumerate(ids))
    shards = [ShardOutcomes(table, outcomes)]
    write_results(
        lambda: iter(shards),
        directory,
        learn_layout(shards, id_columns=["custom_id", "id"]),
        formats=["jsonl", "parquet"],
        batch=BatchFile("r", datetime(2026, 1, 1, tzinfo=UTC), "m") if batch else None,
    )


def lines(path: Path) -> list[dict[str, Any]]:
    def refuse(word: str) -> None:
        raise AssertionError(f"not JSON: {word}")

    text = path.read_bytes().decode()
    return [json.loads(line, parse_constant=refuse) for line in text.split("\n") if line]


def test_integers_that_no_float_holds_stay_exact(tmp_path: Path) -> None:
    write(tmp_path, {"row": ['{"a": 1152921504606846977}', '{"a": 1.5}']}, generated())
    column = pq.read_table(tmp_path / "results.parquet").column("a").to_pylist()
    assert column == ["1152921504606846977", "1.5"]


def test_half_surrogate_in_the_input_stays_an_escape(tmp_path: Path) -> None:
    write(tmp_path, {"row": ['{"a": "\\ud800"}']}, generated())
    column = pq.read_table(tmp_path / "results.parquet").column("a").to_pylist()
    assert column == ['"\\ud800"']


def test_half_surrogate_in_generated_text_is_replaced(tmp_path: Path) -> None:
    write(tmp_path, {"row": ['{"a": 1}']}, generated("x\ud800"))
    assert lines(tmp_path / "results.jsonl")[0]["generated_text"] == "x\ufffd"


def test_infinite_logprobs_are_the_lowest_number(tmp_path: Path) -> None:
    write(tmp_path, {"row": ['{"a": 1}']}, generated(logprobs=INFINITE))
    assert lines(tmp_path / "results.jsonl")[0]["logprobs"][0]["logprobs"] == [-0.5, -9999.0]


def test_prompt_logprobs_are_a_column(tmp_path: Path) -> None:
    asked = replace(generated(), prompt_logprobs=(None, TokenLogprobs((7, 9), (-0.5, -1.5), 1)))
    write(tmp_path, {"row": ['{"a": 1}']}, asked)
    expected = [None, {"token_ids": [7, 9], "logprobs": [-0.5, -1.5], "rank": 1}]
    assert lines(tmp_path / "results.jsonl")[0]["prompt_logprobs"] == expected
    table = pq.read_table(tmp_path / "results.parquet")
    assert table.column("prompt_logprobs").to_pylist() == [expected]


def test_nan_of_a_tabular_column_is_null_in_json(tmp_path: Path) -> None:
    write(tmp_path, {"column.a": [float("nan")]}, generated())
    assert lines(tmp_path / "results.jsonl")[0]["a"] is None


def test_ours_have_their_plain_names_and_older_ones_get_numbers(tmp_path: Path) -> None:
    row = '{"generated_text": "x", "generated_text_1": "y", "n": 1.50}'
    write(tmp_path, {"row": [row]}, generated())
    found = lines(tmp_path / "results.jsonl")[0]
    assert [found[f"generated_text{n}"] for n in ("", "_1", "_2")] == ["hi", "y", "x"]
    assert '"generated_text_1": "y", "n": 1.50,' in (tmp_path / "results.jsonl").read_text()
    assert pq.read_table(tmp_path / "results.parquet").to_pylist()[0] == found


@pytest.mark.parametrize(
    "ids",
    [["5", '"p1"'], ["5", str(2**70)], ["null", '"p1"'], ['"p0"', "1.5"], ["NaN", "true"]],
    ids=["mixed", "large", "null", "float", "constants"],
)
def test_ids_are_texts_and_the_same_in_both_formats(tmp_path: Path, ids: list[str]) -> None:
    """`write` calls the rows p0 and p1, whatever their own columns say."""
    write(tmp_path, {"row": [f'{{"id": {text}}}' for text in ids]}, generated())
    assert [row["id"] for row in lines(tmp_path / "results.jsonl")] == ["p0", "p1"]
    assert pq.read_table(tmp_path / "results.parquet").column("id").to_pylist() == ["p0", "p1"]


def test_a_row_without_an_id_has_the_made_one_in_the_column_of_the_others(tmp_path: Path) -> None:
    write(tmp_path, {"row": ['{"custom_id": "p0"}', '{"n": 1}', None]}, generated())
    rows = lines(tmp_path / "results.jsonl")
    assert [row["custom_id"] for row in rows] == ["p0", "p1", "p2"]
    assert all("id" not in row for row in rows)


def test_constants_that_are_no_json_are_null_there_and_kept_in_parquet(tmp_path: Path) -> None:
    row = '{"a": NaN, "b": [-Infinity, "NaN \\" NaN"]}'
    write(tmp_path, {"row": [row, '{"a": 1}']}, generated())
    found = lines(tmp_path / "results.jsonl")[0]
    assert (found["a"], found["b"]) == (None, [None, 'NaN " NaN'])
    first, second = pq.read_table(tmp_path / "results.parquet").column("a").to_pylist()
    assert [str(first), second] == ["nan", 1.0]


def test_completions_have_the_logprobs_of_completions(tmp_path: Path) -> None:
    row = '{"custom_id": "c", "url": "/v1/completions", "body": {"model": "m", "prompt": "x"}}'
    write(tmp_path, {"row": [row]}, generated(logprobs=INFINITE), batch=True)
    line = lines(tmp_path / "batch_output.jsonl")[0]
    assert line["response"]["body"]["choices"][0]["logprobs"] == {
        "tokens": ["token_id:1"],
        "token_logprobs": [-0.5],
        "top_logprobs": [{"token_id:1": -0.5, "token_id:2": -9999.0}],
        "text_offset": [0],
    }


def test_every_column_of_ours_has_a_type_in_parquet() -> None:
    assert {*ADDED, *OF_STRUCTURE, RAW_ROW, *ORIGIN, *REUSE} == ADDED_TYPES.keys()
