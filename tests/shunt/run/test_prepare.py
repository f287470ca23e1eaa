"""The same input and what decides results make the same run; nothing else does."""

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from shunt import keys
from shunt.dataset.preflight import PreflightReport
from shunt.dataset.prompt import Prompt
from shunt.dataset.rendering import renderer_for
from shunt.dataset.shard import read_shard
from shunt.errors import InputError, RunMissing
from shunt.job.job import Job
from shunt.job.job_file import load_job
from shunt.run.manifest import Manifest, read_manifest
from shunt.run.prepare import preflight, prepare
from shunt.run.run_id import find_dataset, run_id_of
from shunt.store.errors import StoreUnavailable
from shunt.store.protocol import Store
from shunt.testing.faulty_store import FaultyStore, When, fail_call
from shunt.testing.memory_store import MemoryStore

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RENDERER = renderer_for("none", revision=None, max_model_len=None, fake=True)


def _job(tmp_path: Path, *overrides: str) -> Job:
    path = tmp_path / "job.yaml"
    path.write_text("name: test\nmodel: {path: hub/id}\ninput: {path: rows.jsonl}\n")
    return load_job(path, overrides)


def _run_id(tmp_path: Path, *overrides: str) -> str:
    job = _job(tmp_path, *overrides)
    return run_id_of(job, find_dataset(job))


@pytest.fixture(autouse=True)
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "One"}\n')
    return path


@pytest.mark.parametrize(
    "override",
    ["fleet.workers=3", "store.uri=s3://b/c", "output.path=x", "checkpoint_tokens=9",
     "input.storage_options={anon: true}", "input.endpoint_url=http://minio:9000"],
)  # fmt: skip
def test_how_a_run_is_carried_out_is_no_part_of_its_id(tmp_path: Path, override: str) -> None:
    assert _run_id(tmp_path, override) == _run_id(tmp_path)


@pytest.mark.parametrize("override", ["sampling.max_tokens=9", "input.chat=true"])
def test_what_decides_results_is_part_of_its_id(tmp_path: Path, override: str) -> None:
    assert _run_id(tmp_path, override) != _run_id(tmp_path)


def test_other_rows_are_another_run(tmp_path: Path, rows: Path) -> None:
    before = _run_id(tmp_path)
    rows.write_text('{"prompt": "Two"}\n')
    assert _run_id(tmp_path) != before


def write_rows(path: Path, ids: list[str | None]) -> None:
    path.write_text("".join(json.dumps({"id": i, "prompt": "hi"}) + "\n" for i in ids))


def prompts(store: Store, manifest: Manifest) -> Iterator[Prompt]:
    for entry in manifest.shards:
        data = store.get(keys.shard_prompts(manifest.run_id, entry.shard_id))
        yield from read_shard(data, defaults=manifest.job.sampling)


def contents(store: Store) -> dict[str, bytes]:
    return {key: store.get(key) for key in store.list("")}


@pytest.mark.parametrize("when", When)
def test_a_crash_at_any_store_call_is_repaired_by_another_prepare(
    tmp_path: Path, rows: Path, when: When
) -> None:
    write_rows(rows, [f"p{number}" for number in range(7)])
    job = _job(tmp_path, "shard_prompts=2")
    undisturbed = FaultyStore(MemoryStore())
    manifest = prepare(job, undisturbed, RENDERER, now=NOW)
    assert len(manifest.shards) == 4
    num_calls = undisturbed.num_calls
    # Is there a manifest; what is reused (is it settled, before the pass and after it, which runs
    # are there, settle it); four shards, three of them of rows like the first and so done; keys;
    # the manifest.
    assert num_calls == 1 + 4 + 4 + 3 + 1 + 1
    for number in range(num_calls):
        store = MemoryStore()
        try:
            prepare(job, FaultyStore(store, fail_call(number, when)), RENDERER, now=NOW)
        except StoreUnavailable:
            assert when is not When.REPLY_LOST
            if not (when is When.AFTER and number == num_calls - 1):
                with pytest.raises(RunMissing):
                    read_manifest(store, manifest.run_id)
        assert prepare(job, store, RENDERER, now=NOW) == manifest
        assert contents(store) == contents(undisturbed)


def test_two_that_prepare_one_run_at_once_get_one_manifest(tmp_path: Path, rows: Path) -> None:
    write_rows(rows, [f"p{number}" for number in range(50)])
    job, store = _job(tmp_path, "shard_prompts=4"), MemoryStore()
    manifests: list[Manifest] = []
    start = threading.Barrier(3)

    def one(second: int) -> None:
        start.wait()
        manifests.append(prepare(job, store, RENDERER, now=NOW.replace(second=second)))

    threads = [threading.Thread(target=one, args=(second,)) for second in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(manifests) == 3
    assert {manifest.created_at for manifest in manifests} == {manifests[0].created_at}
    assert [p.prompt_id for p in prompts(store, manifests[0])] == [f"p{n}" for n in range(50)]


def test_a_prepared_run_is_found_without_another_pass(tmp_path: Path) -> None:
    reports: list[PreflightReport] = []
    job, store = _job(tmp_path), MemoryStore()
    first = prepare(job, store, RENDERER, now=NOW, saw=reports.append)
    again = prepare(job, store, RENDERER, now=NOW.replace(year=2027), saw=reports.append)
    assert again == first
    assert len(reports) == 1


def test_the_first_row_of_an_id_stays_and_later_ones_are_refused(
    tmp_path: Path, rows: Path
) -> None:
    write_rows(rows, ["a", "b", "a", "c", "a", "b"])
    reports: list[PreflightReport] = []
    store = MemoryStore()
    job = _job(tmp_path, "shard_prompts=2")
    manifest = prepare(job, store, RENDERER, now=NOW, saw=reports.append)
    errors = [p.error and p.error.message for p in prompts(store, manifest)]
    assert errors == [
        None,
        None,
        "rows.jsonl:3: id 'a' is also at rows.jsonl:1",
        None,
        "rows.jsonl:5: id 'a' is also at rows.jsonl:1",
        "rows.jsonl:6: id 'b' is also at rows.jsonl:2",
    ]
    assert [entry.num_error_rows for entry in manifest.shards] == [0, 1, 2]
    assert reports[0].num_error_rows == manifest.num_error_rows == 3
    assert preflight(job, RENDERER).errors == reports[0].errors


def test_a_made_id_gives_way_to_one_that_a_row_has(tmp_path: Path, rows: Path) -> None:
    """Wherever the row stands that has it; nobody's row is refused for an id that was made."""
    write_rows(rows, ["row-00000001", None, None, "row-00000002", "row-00000002-2"])
    store = MemoryStore()
    found = list(prompts(store, prepare(_job(tmp_path), store, RENDERER, now=NOW)))
    assert [prompt.error for prompt in found] == [None] * 5
    assert [prompt.prompt_id for prompt in found] == [
        *("row-00000001", "row-00000001-2", "row-00000002-3", "row-00000002", "row-00000002-2")
    ]


def test_a_bad_row_with_a_repeated_id_counts_once(tmp_path: Path, rows: Path) -> None:
    rows.write_text('{"id": "a", "prompt": "hi"}\n{"id": "a", "prompt": ""}\n')
    job, store = _job(tmp_path), MemoryStore()
    manifest = prepare(job, store, RENDERER, now=NOW)
    _, second = prompts(store, manifest)
    assert second.error is not None
    assert second.error.code == "empty_prompt"
    assert manifest.num_error_rows == 1
    assert preflight(job, RENDERER).num_error_rows == 1


def test_a_sample_is_the_first_rows_as_a_run_of_its_own(tmp_path: Path, rows: Path) -> None:
    write_rows(rows, ["a", "b", "b", "a"])
    job, store = _job(tmp_path), MemoryStore()
    sample = prepare(job, store, RENDERER, now=NOW, sample=2)
    assert [(p.prompt_id, p.error) for p in prompts(store, sample)] == [("a", None), ("b", None)]
    assert prepare(job, store, RENDERER, now=NOW).run_id != sample.run_id


def test_strict_refuses_before_anything_is_written(tmp_path: Path, rows: Path) -> None:
    rows.write_text('{"prompt": ""}\n')
    store = MemoryStore()
    with pytest.raises(InputError, match=r"(?s)1 of 1 rows are bad.*rows\.jsonl:1"):
        prepare(_job(tmp_path, "errors.strict=true"), store, RENDERER, now=NOW)
    assert contents(store) == {}


def test_an_input_without_rows_is_refused(tmp_path: Path, rows: Path) -> None:
    rows.write_text("\n")
    with pytest.raises(InputError, match="there is no row in it"):
        prepare(_job(tmp_path), MemoryStore(), RENDERER, now=NOW)


def test_an_input_that_changes_while_it_is_read_is_refused(tmp_path: Path, rows: Path) -> None:
    store = MemoryStore()

    def append(_: PreflightReport) -> None:
        with rows.open("a") as file:
            file.write('{"prompt": "Two"}\n')

    with pytest.raises(InputError, match="changed while it was read"):
        prepare(_job(tmp_path), store, RENDERER, now=NOW, saw=append)
    assert list(store.list("")) == []
    assert prepare(_job(tmp_path), store, RENDERER, now=NOW).num_rows == 2
