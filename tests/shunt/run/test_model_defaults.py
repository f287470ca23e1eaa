"""The model's own sampling defaults: under those of row and job, told, kept, part of the run."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from shunt import keys
from shunt.dataset.preflight import PreflightReport
from shunt.dataset.rendering import renderer_for
from shunt.dataset.shard import read_shard
from shunt.errors import JobError
from shunt.job.job import Job
from shunt.job.sampling import Sampling
from shunt.run.manifest import Manifest
from shunt.run.prepare import prepare
from shunt.run.run_id import find_dataset, run_id_of
from shunt.testing.memory_store import MemoryStore

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CARD: dict[str, Any] = {"temperature": 0.6, "top_p": 0.95, "max_tokens": 2048}
ROWS: list[dict[str, Any]] = [{"prompt": "x"}, {"prompt": "x", "sampling": {"temperature": 0.1}}]


def job_of(
    directory: Path, rows: list[dict[str, Any]] = ROWS, sampling: Any = None, **model: Any
) -> Job:
    source = directory / "in.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Job.model_validate(
        {
            "name": "t",
            "model": {"path": "fake", "engine_kind": "fake", **model},
            "input": {"path": str(source)},
            "sampling": sampling or {},
        }
    )


def prepared(
    job: Job, card: dict[str, Any] = CARD
) -> tuple[Manifest, list[Sampling], PreflightReport]:
    store, reports = MemoryStore(), list[PreflightReport]()
    renderer = renderer_for("fake", revision=None, max_model_len=None, fake=True)
    manifest = prepare(job, store, renderer, now=NOW, card=card, saw=reports.append)
    shard = store.get(keys.shard_prompts(manifest.run_id, "000000"))
    read = read_shard(shard, defaults=manifest.settled_job.sampling)
    return manifest, [prompt.sampling for prompt in read], reports[0]


def test_they_count_where_row_and_job_say_nothing(tmp_path: Path) -> None:
    manifest, [plain, own], report = prepared(job_of(tmp_path, sampling={"top_p": 0.5}))
    assert (plain.temperature, plain.top_p, plain.max_tokens) == (0.6, 0.5, 2048)
    assert (own.temperature, own.top_p, own.max_tokens) == (0.1, 0.5, 2048)
    assert manifest.sampling_defaults == CARD
    assert manifest.job.sampling == Sampling(top_p=0.5)
    assert report.max_output_tokens == 2 * 2048
    [note] = report.notes
    assert "temperature 0.6, max_tokens 2048 (" in note


def test_a_job_may_leave_them_out_and_is_told_so(tmp_path: Path) -> None:
    manifest, [plain, _], report = prepared(job_of(tmp_path, generation_config="vllm"))
    assert (plain.temperature, plain.top_p, plain.max_tokens) == (0.0, 1.0, 256)
    assert manifest.sampling_defaults == {}
    [note] = report.notes
    assert note.startswith("the model's own sampling defaults are not taken: temperature 0.6")


def test_nothing_is_told_where_the_job_says_all_of_it(tmp_path: Path) -> None:
    _, _, report = prepared(job_of(tmp_path, sampling=CARD | {"temperature": 0}))
    assert report.notes == []


def test_they_are_part_of_the_run_where_they_are_taken(tmp_path: Path) -> None:
    auto, off = job_of(tmp_path), job_of(tmp_path, generation_config="vllm")
    dataset = find_dataset(auto)
    without = run_id_of(auto, dataset)
    assert run_id_of(auto, dataset, card=CARD) != without
    assert run_id_of(auto, dataset, card={}) == without
    assert run_id_of(off, dataset, card=CARD) == without


def test_a_manifest_of_an_earlier_version_goes_on_without_them(tmp_path: Path) -> None:
    manifest, _, _ = prepared(job_of(tmp_path))
    old = json.loads(manifest.model_dump_json())
    for name in ("sampling_defaults", "grammar_backend", "structured"):
        del old[name]
    del old["job"]["model"]["generation_config"]
    read = Manifest.model_validate(old)
    assert read.settled_job == read.job
    assert read.settled_job.sampling.temperature == 0.0


def test_a_card_with_an_impossible_value_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"top_p: .*generation_config: vllm"):
        prepared(job_of(tmp_path), {"top_p": 7})


BATCH = "/v1/chat/completions"


@pytest.mark.parametrize(
    ("card", "sampling", "body", "expected"),
    [
        ({}, {}, {}, (1.0, None)),
        (CARD, {}, {}, (0.6, 2048)),
        (CARD, {"temperature": 0.3}, {}, (0.3, 2048)),
        (CARD, {"temperature": 0.3}, {"temperature": 0.2, "max_tokens": 5}, (0.2, 5)),
        ({}, {"max_tokens": 9}, {}, (1.0, 9)),
    ],
)
def test_an_openai_body_comes_first_then_the_job_then_the_model_then_openai(
    tmp_path: Path, card: Any, sampling: Any, body: Any, expected: tuple[float, int | None]
) -> None:
    messages = [{"role": "user", "content": "x"}]
    line = {"custom_id": "a", "method": "POST", "url": BATCH}
    job = job_of(tmp_path, [{**line, "body": {"messages": messages, **body}}], sampling)
    _, [read], _ = prepared(job, card)
    assert (read.temperature, read.max_tokens) == expected
