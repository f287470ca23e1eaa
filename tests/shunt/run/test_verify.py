"""A whole small run without engines: prepared, checkpointed, collected, verified."""

import json
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import pyarrow.parquet as pq
import pytest

import shunt.run.collect
import shunt.run.verify
from shunt import keys
from shunt.checkpoint.generation import Finish, Generation
from shunt.checkpoint.lease import LeaseObserver
from shunt.checkpoint.log import CheckpointLog
from shunt.checkpoint.progress import replay
from shunt.checkpoint.segment import Gain
from shunt.dataset.rendering import renderer_for
from shunt.job.job import Job, Output
from shunt.results.outcome import ShardOutcomes
from shunt.results.publishing import CARD_NAME, NAME_OF
from shunt.results.summary import result_file
from shunt.run.collect import ReadOutcomes, ShardsCorrupt, ShardsOpen, collect, find_cuts, kept_cuts
from shunt.run.manifest import Manifest
from shunt.run.prepare import prepare
from shunt.run.verify import verify
from shunt.store.opening import open_store
from shunt.testing.memory_store import MemoryStore
from shunt.testing.s3_server import S3Server

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ROWS = [{"prompt": f"say {index}", "num_resumes": index + 7} for index in range(5)]


def run(directory: Path, *, unfinished: int | None = None) -> tuple[MemoryStore, Manifest]:
    source = directory / "in.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    job = Job.model_validate(
        {
            "name": "small",
            "model": {"path": "fake", "engine_kind": "fake"},
            "input": {"path": str(source)},
            "output": {"path": str(directory / "out-{run_id}")},
            "shard_prompts": 2,
        }
    )
    store = MemoryStore()
    renderer = renderer_for("fake", revision=None, max_model_len=None, fake=True)
    manifest = prepare(job, store, renderer, now=NOW)
    observer = LeaseObserver(store, manifest.run_id, 30.0, lambda: 0.0)
    for entry in manifest.shards:
        lease = observer.acquire(entry.shard_id, "me")
        assert lease is not None
        log = CheckpointLog(lease, replay(store, manifest.run_id, entry.shard_id))
        indexes = range(entry.first_index, entry.first_index + entry.num_prompts)
        log.append([_gain(index) for index in indexes if index != unfinished])
    return store, manifest


def _gain(index: int) -> Gain:
    finish = Finish("stop", None, f"text {index}")
    return Gain(index, 0, 0, Generation((index + 1,), num_prompt_tokens=5, finish=finish))


def test_a_whole_run_passes_and_keeps_its_columns(tmp_path: Path) -> None:
    store, manifest = run(tmp_path)
    summary = collect(store, manifest, now=NOW)
    assert verify(store, manifest).problems == []
    assert collect(store, manifest, now=NOW) == summary
    text = (Path(summary.directory) / "results.jsonl").read_text()
    found = [json.loads(line) for line in text.splitlines()]
    kept = [{"prompt": row["prompt"], "num_resumes": row["num_resumes_1"]} for row in found]
    assert kept == ROWS


def test_results_of_the_first_layout_are_verified_by_its_names(tmp_path: Path) -> None:
    """There ours gave way to the input's columns, and got a prefix."""
    store, manifest = run(tmp_path)
    summary = collect(store, manifest, now=NOW)
    path = Path(summary.directory) / "results.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        ours, theirs = row["num_resumes"], row.pop("num_resumes_1")
        row |= {"shunt_num_resumes": ours, "num_resumes": theirs}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    older = summary.model_copy(update={"layout_version": 1, "files": (result_file(path),)})
    store.put(keys.result(manifest.run_id, "summary.json"), older.model_dump_json().encode())
    assert verify(store, manifest).problems == []


def test_an_unfinished_prompt_is_not_collected(tmp_path: Path) -> None:
    store, manifest = run(tmp_path, unfinished=3)
    with pytest.raises(ShardsOpen):
        collect(store, manifest, now=NOW)


def _swap(lines: list[bytes]) -> list[bytes]:
    return [lines[1], lines[0], *lines[2:]]


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param(lambda lines: [lines[0].replace(b"text 0", b"text 9"), *lines[1:]], id="edit"),
        pytest.param(lambda lines: lines[1:], id="dropped"),
        pytest.param(lambda lines: [lines[0], *lines], id="doubled"),
        pytest.param(_swap, id="swapped"),
        pytest.param(lambda lines: [b"[]\n", *lines[1:]], id="no-object"),
        pytest.param(lambda lines: [b"\xff" + lines[0], *lines[1:]], id="no-utf8"),
    ],
)
def test_damaged_lines_are_found(
    tmp_path: Path, edit: Callable[[list[bytes]], list[bytes]]
) -> None:
    store, manifest = run(tmp_path)
    path = Path(collect(store, manifest, now=NOW).directory) / "results.jsonl"
    path.write_bytes(b"".join(edit(path.read_bytes().splitlines(keepends=True))))
    problems = verify(store, manifest).problems
    assert any(problem.startswith("results.jsonl") for problem in problems)


@pytest.mark.parametrize("order", [[1, 2, 3, 4], [0, 0, 1, 2, 3, 4], [1, 0, 2, 3, 4]])
def test_damaged_rows_are_found(tmp_path: Path, order: list[int]) -> None:
    store, manifest = run(tmp_path)
    path = Path(collect(store, manifest, now=NOW).directory) / "results.parquet"
    pq.write_table(pq.read_table(path).take(order), path)
    problems = verify(store, manifest).problems
    assert any(problem.startswith("results.parquet") for problem in problems)


def test_cut_and_missing_files_are_found(tmp_path: Path) -> None:
    store, manifest = run(tmp_path)
    directory = Path(collect(store, manifest, now=NOW).directory)
    path = directory / "results.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    (directory / "results.jsonl").unlink()
    problems = " ".join(verify(store, manifest).problems)
    assert "is missing" in problems
    assert "cannot be read" in problems


def test_an_id_with_two_good_rows_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`prepare` never lets it come to that, so the log is made to say it."""
    store, manifest = run(tmp_path)
    real = shunt.run.verify.reading_outcomes

    @contextmanager
    def doubled(*arguments: Any) -> Generator[ReadOutcomes]:
        def read() -> Iterator[ShardOutcomes]:
            for shard in outcomes():
                made = (replace(o, prompt_id=f"row-{o.index // 2}") for o in shard.outcomes)
                yield replace(shard, outcomes=tuple(made))

        with real(*arguments) as outcomes:
            yield read

    monkeypatch.setattr(shunt.run.verify, "reading_outcomes", doubled)
    assert "id row-0: has 2 good rows" in verify(store, manifest).problems


def test_a_copy_of_the_results_is_compared_where_it_lies(tmp_path: Path) -> None:
    store, manifest = run(tmp_path)
    made = Path(collect(store, manifest, now=NOW).directory)
    copy = made.rename(tmp_path / "copy")
    assert not verify(store, manifest).ok
    report = verify(store, manifest, results=str(copy))
    assert report.ok, report.problems
    (copy / "results.jsonl").write_text("{}")
    assert not verify(store, manifest, results=str(copy)).ok


@pytest.mark.s3
def test_results_in_a_bucket_are_compared_there(
    tmp_path: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.credentials.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.credentials.secret_access_key)
    monkeypatch.setenv("AWS_REGION", s3.region)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint_url)
    store, manifest = run(tmp_path)
    place = f"s3://{s3.bucket}/{tmp_path.name}-results"
    output = manifest.job.output.model_copy(update={"path": place + "-{run_id}"})
    job = manifest.job.model_copy(update={"output": output})
    manifest = manifest.model_copy(update={"job": job})
    summary = collect(store, manifest, now=NOW)
    report = verify(store, manifest)
    assert report.ok, report.problems
    assert len(report.files) == 2
    published = open_store(summary.directory)
    published.put("results.jsonl", published.get("results.jsonl") + b"{}")
    assert "was changed" in "".join(verify(store, manifest).problems)
    published.delete("results.parquet")
    assert "results.parquet: is missing" in verify(store, manifest).problems


def test_a_shard_that_cannot_be_read_is_named_and_leaves_the_run_incomplete(tmp_path: Path) -> None:
    store, manifest = run(tmp_path)
    key = next(k for k in store.list(keys.segment_prefix(manifest.run_id, "000001")))
    store.put(key, store.get(key)[:-1])
    with pytest.raises(ShardsCorrupt, match=r"shard 000001: .*fails its checksum"):
        collect(store, manifest, now=NOW)


def test_cuts_stand_before_rows_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second collect, at once or after a crash, makes its files from the positions of the first,
    although another owner has sealed the log elsewhere meanwhile."""
    store, manifest = run(tmp_path)

    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(shunt.run.collect, "write_results", crash)
        with pytest.raises(KeyboardInterrupt):
            collect(store, manifest, now=NOW)
    before = kept_cuts(store, manifest)
    lease = LeaseObserver(store, manifest.run_id, 0.0, lambda: 0.0).acquire("000000", "late")
    assert lease is not None
    CheckpointLog(lease, replay(store, manifest.run_id, "000000")).append([])
    assert find_cuts(store, manifest) != before
    assert collect(store, manifest, now=NOW).cuts == before


def test_every_format_that_a_job_may_ask_for_is_read_back() -> None:
    (formats,) = get_args(Output.model_fields["formats"].annotation)
    assert set(get_args(formats)) == NAME_OF.keys()
    read_back = {*shunt.run.verify.ROWS_OF, CARD_NAME}  # whose parts are read as tables
    assert set(NAME_OF.values()) == read_back


def test_a_file_of_an_unknown_format_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, manifest = run(tmp_path)
    collect(store, manifest, now=NOW)
    monkeypatch.setattr(shunt.run.verify, "ROWS_OF", {})
    problems = verify(store, manifest).problems
    assert "results.jsonl: is of a format that verify cannot read" in problems
