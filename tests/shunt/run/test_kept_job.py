"""What nodes go by: the first invocation's job, until another says something else to them."""

from typing import Any

from shunt.job.job import Job
from shunt.run.kept_job import changed_keys, current_job, keep_job
from shunt.run.manifest import Manifest
from shunt.testing.memory_store import MemoryStore
from tests.shunt.aws.conftest import START


def job_of(**changes: Any) -> Job:
    given = {"name": "n", "model": {"path": "m"}, "input": {"path": "i"}}
    return Job.model_validate(given | changes)


def manifest_of(job: Job) -> Manifest:
    return Manifest(
        run_id="r", created_at=START, job=job, input_format="jsonl", files=(), shards=()
    )


def test_the_newest_job_that_was_kept_counts() -> None:
    store, manifest = MemoryStore(), manifest_of(job_of())
    assert current_job(store, manifest) == job_of()
    for term_s in (20.0, 40.0):
        keep_job(store, manifest, job_of(lease_term_s=term_s))
    assert current_job(store, manifest) == job_of(lease_term_s=40.0)


def test_what_a_node_does_not_read_is_no_change() -> None:
    elsewhere = job_of(fleet={"workers": 7}, limits={"max_cost_usd": 3}, store={"uri": "elsewhere"})
    assert changed_keys(job_of(), elsewhere) == []
    engine = {"path": "m", "engine": {"max_num_seqs": 9, "extra": {"seed": 1}}}
    assert changed_keys(job_of(), job_of(model=engine, checkpoint_tokens=5)) == [
        "checkpoint_tokens",
        "model.engine.extra.seed",
        "model.engine.max_num_seqs",
    ]
