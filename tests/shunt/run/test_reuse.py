"""Rows that take the answers of other rows: of earlier runs, of equals in their own dataset."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import shunt.run.reuse
from shunt import keys
from shunt.checkpoint.done import done_shards
from shunt.dataset.answer_key import ROW_KEY, KeyKind
from shunt.dataset.rendering import ByteTokenizer
from shunt.errors import RunIncomplete
from shunt.run.collect import collect
from shunt.run.known_answers import mark_answered, upload_known
from shunt.run.manifest import Manifest
from shunt.run.partial import collect_partial
from shunt.run.prepare import prepare
from shunt.run.reuse import Reuse, find_reuse
from shunt.run.status import StatusReader
from shunt.store.protocol import Store
from shunt.testing.memory_store import MemoryStore
from tests.shunt.run.nights import NOW, RENDERER, Nights, codes, rows, texts


def test_a_dataset_that_grows_for_seven_nights_generates_what_is_new(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    prompts = [f"p{number}" for number in range(5)]
    for night in range(7):
        prompts.append(f"new {night}")
        found = nights.night(rows(*prompts))
        expected = [f"0:{index}" for index in range(6)]
        expected += [f"{later}:{5 + later}" for later in range(1, night + 1)]
        assert texts(found) == expected
    assert nights.generated == [6, 1, 1, 1, 1, 1, 1]
    found = nights.night(rows(*prompts, "last"))
    assert {row["reused_index"] for row in found[:-1]} == set(range(12))
    assert found[-1]["reused_from"] is None
    assert len({row["reused_from"] for row in found[:6]}) == 1


def test_rows_in_another_order_and_between_others_are_found(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    nights.night(rows("a", "b", "c", "d", "e"))
    found = nights.night(rows("e", "x", "b", "a", "y", "d", "c"))
    assert texts(found) == ["0:4", "1:1", "0:1", "0:0", "1:4", "0:3", "0:2"]


def test_unchanged_data_needs_no_worker(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    nights.night(rows("a", "b", "c"))
    manifest = nights.prepare([*rows("c", "b"), {"prompt": "a", "note": "carried only"}])
    assert manifest.num_reused_rows == 3
    assert done_shards(nights.store, manifest.run_id) == {"000000", "000001"}
    status = StatusReader(nights.store, manifest.run_id).read()
    assert (status.state, status.rows_left, status.output_tokens) == ("generated", 0, 0)
    nights.generate(manifest)
    assert texts(nights.collected(manifest)) == ["0:2", "0:1", "0:0"]
    assert nights.generated == [3, 0]


def test_equal_rows_are_generated_once(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    found = nights.night([*rows("a", "b", "a", "a"), {"prompt": "a", "sampling": {"n": 2}}])
    assert texts(found)[:4] == ["0:0", "0:1", "0:0", "0:0"]
    assert nights.generated == [3]
    assert [row["reused_index"] for row in found] == [None, None, 0, 0, None]
    assert texts(nights.night(rows("b", "a", "a", "z"))) == ["0:1", "0:0", "0:0", "1:3"]


@pytest.mark.parametrize(
    "change",
    [
        {"sampling": {"max_tokens": 7}},
        {"sampling": {"stop": ["x"]}},
        {"model": {"path": "other", "engine_kind": "fake"}},
        {"input": {"add_special_tokens": False}},
        {"name": "another"},
        {"reuse": False},
    ],
)
def test_what_decides_answers_finds_nothing(tmp_path: Path, change: dict[str, Any]) -> None:
    nights = Nights(tmp_path)
    nights.night(rows("a", "b"))
    if "input" in change:
        change = {"input": {"path": str(tmp_path / "in.jsonl"), **change["input"]}}
    assert texts(nights.night(rows("a", "b", "c"), **change)) == ["1:0", "1:1", "1:2"]


def test_what_decides_no_answer_changes_nothing(tmp_path: Path) -> None:
    nights = Nights(tmp_path, sampling={"seed": 1})
    nights.night(rows("a", "b"))
    found = nights.night(rows("a", "b"), sampling={"seed": 2}, shard_prompts=1)
    assert texts(found) == ["0:0", "0:1"]  # greedy: a seed decides nothing


def test_rows_that_sample_are_told_apart_by_their_ids(tmp_path: Path) -> None:
    nights = Nights(tmp_path, sampling={"temperature": 1.0})
    named = [{"id": name, "prompt": "a"} for name in "xyz"]
    assert texts(nights.night(named)) == ["0:0", "0:1", "0:2"]
    again = nights.night([named[2], {"id": "w", "prompt": "a"}, named[0]])
    assert texts(again) == ["0:2", "1:1", "0:0"]


def test_rows_that_sample_without_ids_are_told_apart_by_their_number(tmp_path: Path) -> None:
    nights = Nights(tmp_path, sampling={"temperature": 1.0})
    assert texts(nights.night(rows("a", "b", "a"))) == ["0:0", "0:1", "0:2"]
    again = nights.night(rows("new", "a", "a", "a", "b"))
    assert texts(again) == ["1:0", "0:0", "0:2", "1:3", "0:1"]


def test_a_seed_that_is_named_makes_equal_rows_equal(tmp_path: Path) -> None:
    nights = Nights(tmp_path, sampling={"temperature": 1.0, "seed": 5})
    assert texts(nights.night(rows("a", "a"))) == ["0:0", "0:0"]


def test_rows_that_failed_are_tried_again(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    manifest = nights.prepare([*rows("a", "b", "b"), {"prompt": ""}])
    nights.generate(manifest, failing=frozenset({1}))
    found = nights.collected(manifest)
    assert codes(found) == [
        None,
        "engine_refused",
        "engine_refused",
        "empty_prompt",
    ]
    assert texts(nights.night(rows("b", "a"))) == ["1:0", "0:0"]


def test_runs_that_are_not_finished_are_not_looked_into(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    first = nights.prepare(rows("a", "b"))
    second = nights.prepare(rows("a", "b", "c"))
    assert (first.num_reused_rows, second.num_reused_rows) == (0, 0)
    nights.generate(first)
    nights.collected(first)
    # What it looks into was settled when it was prepared first.
    assert nights.prepare(rows("a", "b", "c")) == second
    assert nights.prepare(rows("b", "c")).reused_runs == (first.run_id,)


def test_partial_results_have_what_is_known(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    nights.night(rows("a", "b"))
    manifest = nights.prepare(rows("b", "new", "new", "a"))
    partial = collect_partial(nights.store, manifest, now=NOW)
    assert (partial.num_ok, partial.num_open) == (2, 2)


def test_a_run_that_others_take_from_and_that_is_gone_is_named(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    nights.night(rows("a", "b"))
    manifest = nights.prepare(rows("b", "c"))
    nights.generate(manifest)
    [origin] = manifest.reused_runs
    nights.store.delete(keys.manifest(origin))
    with pytest.raises(RunIncomplete, match=rf"answers of run {origin}.*--no-reuse"):
        collect(nights.store, manifest, now=NOW)


def test_a_run_that_was_removed_before_is_not_looked_into(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    nights.night(rows("a", "b"))
    for key in nights.store.list("runs/"):
        if not key.startswith("runs/known/"):
            nights.store.delete(key)
    assert texts(nights.night(rows("b", "c"))) == ["1:0", "1:1"]


@given(
    earlier=st.lists(st.lists(st.integers(0, 12), max_size=20), max_size=3),
    wanted=st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=1, max_size=30),
    part_rows=st.sampled_from([1, 3, 100]),
    failed=st.sets(st.integers(0, 20)),
)
def test_lookups_agree_with_a_dictionary(
    tmp_path_factory: pytest.TempPathFactory,
    earlier: list[list[int]],
    wanted: list[tuple[int, bool]],
    part_rows: int,
    failed: set[int],
) -> None:
    store = MemoryStore()
    known: dict[int, set[tuple[str, int]]] = {}
    with pytest.MonkeyPatch.context() as patch:
        for number, prompts in enumerate(earlier):
            patch.setattr(shunt.run.reuse, "PART_ROWS", (1, 2, 100)[number])
            run_id, distinct = f"run-{number}", sorted(set(prompts))
            if distinct:
                made = _found(store, [(p, True) for p in distinct], (), tmp_path_factory)
                upload_known(store, "n", run_id, made.parts.items(), made.num_parts)
            mark_answered(store, "n", run_id, sorted(failed))
            for index, prompt in enumerate(distinct):
                if index not in failed:
                    known.setdefault(prompt, set()).add((run_id, index))
        patch.setattr(shunt.run.reuse, "PART_ROWS", part_rows)
        runs = [f"run-{number}" for number in range(len(earlier))]
        found = _found(store, wanted, runs, tmp_path_factory)
    leaders: dict[int, int] = {}
    for index, (prompt, usable) in enumerate(wanted):
        run, place = found.references[index].tolist()
        if not usable:
            assert run == -1
        elif prompt in known:
            assert (found.runs[run - 1], place) in known[prompt]
        elif prompt in leaders:
            assert (run, place) == (0, leaders[prompt])
        else:
            assert run == -1
            leaders[prompt] = index


def _found(
    store: Store,
    wanted: list[tuple[int, bool]],
    run_ids: Any,
    folders: pytest.TempPathFactory,
) -> Reuse:
    """Keys of several buckets each."""
    row_keys = np.zeros(len(wanted), ROW_KEY)
    for row, (prompt, usable) in enumerate(wanted):
        row_keys[row] = (
            prompt % 5 << 61 | prompt,
            prompt,
            KeyKind.ANSWERED if usable else KeyKind.NONE,
        )
    return find_reuse(row_keys, "", store, "n", run_ids, folders.mktemp("keys"))


def test_shards_say_whose_answers_their_rows_take() -> None:
    references = np.array([(-1, 0), (2, 7), (0, 1)], shunt.run.reuse.REFERENCE)
    reuse = Reuse(references, ("x", "y"), {}, 1, 2)
    table = pa.table({"index": [1, 2]})
    marked = reuse.mark(table, 1)
    assert marked.column("from_run").to_pylist() == [2, 0]
    assert marked.column("from_index").to_pylist() == [7, 1]
    assert reuse.mark(table.slice(0, 1), 0).column_names == ["index"]


def test_a_run_that_is_prepared_again_the_next_day_finds_the_same(tmp_path: Path) -> None:
    """Shards that an interrupted preparation left stand, with whose answers their rows take."""
    nights = Nights(tmp_path)
    chats = [{"messages": [{"role": "user", "content": name}]} for name in "ab"]

    def on(day: str) -> Manifest:
        told = ToldTheDay(day)
        renderer = replace(RENDERER, tokenizer=told)
        return prepare(nights.job(), nights.store, renderer, now=NOW)

    nights.prepare(chats)
    first = on("2026-01-01")  # makes the run of `nights.prepare`: same id, same everything
    nights.generate(first)
    nights.collected(first)
    nights.prepare([*chats, {"prompt": "new"}], shard_prompts=3)  # writes the input alone
    manifests = [on("2026-01-02")]
    nights.store.delete(keys.manifest(manifests[0].run_id))
    manifests.append(on("2026-01-03"))
    assert manifests[0] == manifests[1]


@dataclass
class ToldTheDay(ByteTokenizer):
    """Of a model whose chat template asks for the date."""

    told: str

    @property
    def day(self) -> str:
        return self.told
