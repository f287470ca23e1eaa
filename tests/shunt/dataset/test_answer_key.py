"""Keys of rows: equal where answers are, and nowhere else."""

from typing import Any

import pyarrow as pa
import pytest

from shunt.dataset.answer_key import AnswerKeys
from shunt.dataset.shard import SCHEMA, compact_json
from shunt.job.sampling import Sampling

GREEDY = Sampling()
DRAWN = Sampling(temperature=1.0)


def key(defaults: Sampling = GREEDY, basis: bytes = b"model", day: str = "", **row: Any) -> Any:
    """Of a row between two others."""
    return keys([{"text": "before"}, row, {"text": "after"}], defaults, basis, day)[1]


def keys(
    rows: list[dict[str, Any]], defaults: Sampling, basis: bytes = b"model", day: str = ""
) -> list[Any]:
    own = [compact_json(row["sampling"]) if "sampling" in row else None for row in rows]
    columns = {
        "index": list(range(len(rows))),
        **{name: [row.get(name) for row in rows] for name in SCHEMA.names[1:]},
        "prompt_id": [row.get("prompt_id", f"row-{n:08d}") for n, row in enumerate(rows)],
        "sampling": own,
    }
    table = pa.table({name: columns[name] for name in SCHEMA.names}, schema=SCHEMA)
    return AnswerKeys(basis, defaults, day).of(table).tolist()


def test_a_row_has_one_key_in_whatever_company() -> None:
    """Shards of texts alone go a shorter way."""
    plain = keys([{"text": "a"}, {"text": "b"}], GREEDY)
    mixed = keys([{"text": "a"}, {"text": "b"}, {"token_ids": [1]}], GREEDY)
    assert plain == mixed[:2]
    assert plain[0] != plain[1]


@pytest.mark.parametrize(
    "other",
    [
        key(text="b"),
        key(messages="a"),
        key(token_ids=[97]),
        key(text="a", sampling={"max_tokens": 3}),
        key(text="a", basis=b"another model"),
        key(DRAWN, text="a"),
        key(text="a", error_code="empty_prompt"),
    ],
)
def test_other_rows_have_other_keys(other: Any) -> None:
    assert key(text="a") != other


def test_what_is_spelt_out_is_no_other_row() -> None:
    assert key(text="a", sampling={"max_tokens": GREEDY.max_tokens}) == key(text="a")
    assert key(text="a", sampling={"seed": 3}) == key(text="a")  # greedy
    assert key(text="a", prompt_id="own") == key(text="a")


def test_a_derived_seed_is_of_the_id() -> None:
    assert key(DRAWN, text="a", prompt_id="x") != key(DRAWN, text="a", prompt_id="y")
    assert key(DRAWN, text="a", sampling={"seed": -1}, prompt_id="x") != key(
        DRAWN, text="a", sampling={"seed": -1}, prompt_id="y"
    )
    named = {"text": "a", "sampling": {"seed": 3}}
    assert key(DRAWN, **named, prompt_id="x") == key(DRAWN, **named, prompt_id="y")


def test_a_chat_that_is_told_the_day_has_another_key_tomorrow() -> None:
    assert key(messages="[]", day="2026-01-01") != key(messages="[]", day="2026-01-02")
    assert key(text="a", day="2026-01-01") == key(text="a", day="2026-01-02")
