"""A follow-up run of some rows, whose results are those of both runs."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from shunt import keys
from shunt.checkpoint.done import ShardDone, mark_done, read_done
from shunt.dataset.shard import read_shard
from shunt.errors import InputError, JobError, RunIncomplete
from shunt.report.bad_rows import bad_rows
from shunt.run.manifest import Manifest
from shunt.run.prepare import prepare
from tests.shunt.run.nights import NOW, RENDERER, Nights, codes, rows, texts

LONG = "x" * 9000
"""More bytes, and so tokens of the fake engine, than its context."""


def first_night(nights: Nights) -> Manifest:
    """Rows 1 and 4 failed, row 3 is refused by preflight, row 6 has the id of row 5."""
    named = [{"id": "same", "prompt": "f"}, {"id": "same", "prompt": "g"}]
    manifest = nights.prepare([*rows("a", "b", "c", "", "e"), *named])
    nights.generate(manifest, failing=frozenset({1, 4}))
    nights.collected(manifest)
    return manifest


def test_error_rows_are_generated_again_and_stand_in_their_places(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    origin = first_night(nights)
    manifest = nights.retry(origin)
    assert manifest.run_id != origin.run_id
    nights.generate(manifest)
    found = nights.collected(manifest)
    assert nights.generated == [5, 2]
    assert texts(found) == ["0:0", "1:1", "0:2", None, "1:4", "0:5", None]
    assert codes(found)[3] == "empty_prompt"
    assert codes(found)[6] == "duplicate_id"
    assert [row["id"] for row in found[:5]] == [f"row-{n:08d}" for n in range(5)]
    taken = [row["reused_from"] for row in found]
    assert taken == [*([origin.run_id, None] * 2), None, origin.run_id, None]


@pytest.mark.parametrize(
    ("where", "chosen"),
    [
        (["code=engine_refused"], [1, 4]),
        (["code=empty_prompt"], []),
        (["code=engine_refused", "id=row-00000004"], [4]),
        (["id=row-00000000,row-00000002"], [0, 2]),
        (["finish_reason=length"], [5]),
        (["finish_reason=error, length"], [1, 4, 5]),
    ],
)
def test_rows_are_chosen_by_what_became_of_them(
    tmp_path: Path, where: list[str], chosen: list[int]
) -> None:
    nights = Nights(tmp_path)
    manifest = nights.retry(first_night(nights), *where)
    nights.generate(manifest)
    found = nights.collected(manifest)
    again = [n for n, row in enumerate(found) if (row["generated_text"] or "").startswith("1:")]
    assert again == chosen
    assert nights.generated[1] == len(chosen)


def test_other_settings_are_for_the_chosen_rows_alone(tmp_path: Path) -> None:
    """A row that would be refused under them keeps its answer."""
    nights = Nights(tmp_path, sampling={"max_tokens": 100})
    origin = nights.prepare(rows("short", LONG[:8000], LONG, "bad"))
    nights.generate(origin, failing=frozenset({3}))
    assert codes(nights.collected(origin)) == [None, None, "context_length", "engine_refused"]
    manifest = nights.retry(origin, "code=engine_refused", sampling={"max_tokens": 5000})
    nights.generate(manifest)
    found = nights.collected(manifest)
    assert texts(found) == ["0:0", "0:1", None, "1:3"]
    assert codes(found) == [None, None, "context_length", None]


def test_what_is_set_counts_for_rows_that_said_something_else(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    own = {"max_tokens": 20, "temperature": 9}
    origin = nights.prepare([{"prompt": "a", "sampling": own}, {"prompt": "b"}])
    nights.generate(origin)
    assert codes(nights.collected(origin)) == ["invalid_parameter", None]
    manifest = nights.retry(origin, sampling={"temperature": 0.5})
    data = nights.store.get(keys.shard_prompts(manifest.run_id, "000000"))
    again, _ = read_shard(data, defaults=manifest.settled_job.sampling)
    assert (again.sampling.max_tokens, again.sampling.temperature) == (20, 0.5)
    nights.generate(manifest)
    assert texts(nights.collected(manifest)) == ["1:0", "0:1"]


def test_a_retry_of_a_retry_names_who_generated_each_row(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    zero = nights.prepare(rows("a", "b", "c", "c", "d"))
    nights.generate(zero, failing=frozenset({1, 4}))
    nights.collected(zero)
    first = nights.retry(zero)
    nights.generate(first, failing=frozenset({4}))
    nights.collected(first)
    second = nights.retry(first)
    nights.generate(second)
    found = nights.collected(second)
    assert texts(found) == ["0:0", "1:1", "0:2", "0:2", "2:4"]
    zeros, ones = zero.run_id, first.run_id
    assert [row["reused_from"] for row in found] == [zeros, ones, zeros, zeros, None]
    assert [row["reused_index"] for row in found] == [0, 1, 2, 2, None]


def test_a_retry_is_prepared_once(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    origin = first_night(nights)
    assert nights.retry(origin) == nights.retry(origin)
    assert nights.retry(origin, "code=engine_refused").run_id != nights.retry(origin).run_id


def test_a_table_keeps_its_columns(tmp_path: Path) -> None:
    nights = Nights(tmp_path, input={"path": str(tmp_path / "in.csv")})
    with (tmp_path / "in.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["prompt", "stars"], ["a", 1], ["", 2], ["c", 3], ["d", 4]])
    origin = prepare(nights.job(), nights.store, RENDERER, now=NOW)
    nights.generate(origin, failing=frozenset({2}))
    nights.collected(origin)
    manifest = nights.retry(origin, "code=engine_refused")
    nights.generate(manifest)
    found = nights.collected(manifest)
    assert texts(found) == ["0:0", None, "1:2", "0:3"]
    assert [row["stars"] for row in found] == ["1", "2", "3", "4"]


@pytest.mark.parametrize(
    ("where", "given", "why"),
    [
        (["code=corrupt"], {}, "no row of .* is of that kind"),
        (["colour=red"], {}, "--where colour=red: is none of code=..., id=..."),
        (["id=a", "id=b"], {}, "--where id: is given twice"),
        ([], {"shard_prompts": 3}, "--set shard_prompts: a retry has the rows of its run"),
        ([], {"sampling": {"n": 2}}, "--set sampling.n"),
    ],
)
def test_what_no_retry_can_do_is_refused(
    tmp_path: Path, where: list[str], given: dict[str, Any], why: str
) -> None:
    nights = Nights(tmp_path)
    origin = first_night(nights)
    before = list(nights.store.list(""))
    with pytest.raises(JobError, match=why):
        nights.retry(origin, *where, **given)
    assert list(nights.store.list("")) == before


def test_an_input_that_changed_is_refused(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    origin = first_night(nights)
    (tmp_path / "in.jsonl").write_text(json.dumps({"prompt": "other"}) + "\n")
    with pytest.raises(InputError, match=f"changed since {origin.run_id}"):
        nights.retry(origin)


def test_a_run_that_goes_on_is_refused(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    with pytest.raises(RunIncomplete, match="is not finished: resume it"):
        nights.retry(nights.prepare(rows("a")))


def test_equal_rows_that_failed_are_all_told(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    manifest = nights.prepare(rows("a", "b", "c", "b", "b"))
    nights.generate(manifest, failing=frozenset({1}))
    found = nights.collected(manifest)
    read_done(nights.store, manifest.run_id, into=(done := {}))
    # Nobody marked the first shard: then what was generated is not looked at.
    assert list(bad_rows(nights.store, manifest, done)) == []

    shard = ShardDone(
        shard_id="000000",
        epoch=1,
        num_rows=2,
        num_error_rows=1,
        num_output_tokens=2,
        num_segments=1,
    )
    mark_done(nights.store, manifest.run_id, shard)
    read_done(nights.store, manifest.run_id, into=done)
    told = [(row.row_id, row.line) for row in bad_rows(nights.store, manifest, done)]
    assert told == [(row["id"], n + 1) for n, row in enumerate(found) if row["error_code"]]
    assert len(told) == 3
