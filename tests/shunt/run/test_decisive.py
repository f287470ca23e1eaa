"""What decides results is the same for a run's id and for what a standing run may be told."""

from pathlib import Path

import pytest

from shunt.job.job import Job
from shunt.job.job_file import override_job
from shunt.run.decisive import decisive
from shunt.run.run_id import find_dataset, run_id_of


@pytest.fixture
def job(tmp_path: Path) -> Job:
    (tmp_path / "in.jsonl").write_text('{"prompt": "a"}\n')
    return Job.model_validate(
        {
            "name": "small",
            "model": {"path": "org/model", "dtype": "float32", "engine": {"max_num_seqs": 8}},
            "input": {"path": str(tmp_path / "in.jsonl")},
        }
    )


@pytest.mark.parametrize(
    "override",
    [
        "name=other",
        "input.template='{{ prompt }}!'",
        "input.system=Be brief.",
        "sampling.temperature=0.5",
        "sampling={temperature: 0.5}",
        "shard_prompts=7",
        "errors.broken_structure=error",
        "model.dtype=bfloat16",
        "model.revision=v2",
        "model.max_model_len_tokens=64",
        "model.adapters={a: /adapters/a}",
        "model.engine_kind=fake",
        "model.tool_call_parser=hermes",
        "model.engine.extra.quantization=fp8",
        "model.engine={extra: {quantization: fp8}}",
        "model={path: org/model, dtype: bfloat16}",
    ],
)
def test_what_makes_another_run_is_decisive(job: Job, override: str) -> None:
    other = changed(job, override)
    assert decisive(other) != decisive(job)
    dataset = find_dataset(job)
    assert run_id_of(other, dataset) != run_id_of(job, dataset)


@pytest.mark.parametrize(
    "override",
    [
        "fleet.workers=3",
        "output.path=elsewhere",
        "errors.max_error_rows=9",
        "limits.max_cost_usd=4",
        "checkpoint_interval_s=9",
        "model.engine.max_num_seqs=64",
        "model.engine={max_num_seqs: 8, extra: {block_size: 32}}",
        "model.dtype=float32",
    ],
)
def test_what_makes_no_other_run_is_not(job: Job, override: str) -> None:
    other = changed(job, override)
    assert decisive(other) == decisive(job)
    dataset = find_dataset(job)
    assert run_id_of(other, dataset) == run_id_of(job, dataset)


def changed(job: Job, override: str) -> Job:
    tree = job.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return override_job(tree, [override])
