"""Kill anything, again and again: the rows are those of a quiet run, and nothing stays behind."""

import os
import random
from pathlib import Path
from typing import Any

import pytest

from shunt.testing.s3_server import S3Server
from tests.end_to_end.chaos import (
    after_pauses,
    lay_out,
    rows_of,
    run_with_kills,
    start,
    verify,
)

NUM_KILLS = 20
QUICK = {"path": "none", "engine_kind": "fake"}
SLOW = {**QUICK, "fake_tokens_per_s": 10, "engine": {"max_num_seqs": 4}}
"""The same tokens at a pace that leaves half a minute and more of work to kill."""


def write_job(directory: Path, *, model: dict[str, Any], store: dict[str, Any], rows: int) -> Path:
    """A job of mixed lengths on two workers, with short leases so that takeovers are quick."""
    prompts = [
        {"id": f"row-{n}", "prompt": f"Tell me about the number {n}.", "topic": n % 7}
        for n in range(rows)
    ]
    job = {
        "name": "chaos",
        "model": model,
        "sampling": {"max_tokens": 48},
        "store": store,
        "fleet": {"workers": 2, "max_crashes": 20},
        "shard_prompts": 20,
        "checkpoint_interval_s": 0.5,
        "lease_term_s": 2,
    }
    return lay_out(directory, prompts, job)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_twenty_kills_change_nothing_on_a_directory(tmp_path: Path) -> None:
    """As on S3; kills on a directory by default are those of test_interrupted_run.py."""
    quiet = write_job(tmp_path / "quiet", model=QUICK, store={"uri": "runs"}, rows=100)
    assert start(quiet).wait(300) == 0
    wild = write_job(tmp_path / "wild", model=SLOW, store={"uri": "runs"}, rows=100)
    rng = random.Random(1)
    kills = run_with_kills(wild, rng, kills=NUM_KILLS, due=after_pauses(rng, 2.0))
    assert kills == NUM_KILLS
    assert rows_of(wild.parent) == rows_of(quiet.parent)
    verify(wild, ["chaos"])


@pytest.mark.s3
@pytest.mark.timeout(900)
def test_twenty_kills_change_nothing_on_s3(
    tmp_path: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.credentials.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.credentials.secret_access_key)
    monkeypatch.setenv("AWS_REGION", s3.region)
    quiet = write_job(tmp_path / "quiet", model=QUICK, store={"uri": "runs"}, rows=100)
    assert start(quiet).wait(300) == 0
    uri = f"s3://{s3.bucket}/chaos-{os.getpid()}"
    store = {"uri": uri, "endpoint_url": s3.endpoint_url}
    wild = write_job(tmp_path / "wild", model=SLOW, store=store, rows=100)
    rng = random.Random(2)
    kills = run_with_kills(wild, rng, kills=NUM_KILLS, due=after_pauses(rng, 2.5))
    assert kills == NUM_KILLS
    assert rows_of(wild.parent) == rows_of(quiet.parent)
    verify(wild, ["chaos", "--store", uri, "--endpoint-url", s3.endpoint_url])


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_twenty_kills_change_nothing_with_real_vllm(tmp_path: Path) -> None:
    from shunt.demo_model.smollm2 import ensure_smollm2

    model = {
        "path": str(ensure_smollm2().resolve()),
        "dtype": "float32",
        "max_model_len_tokens": 512,
        "engine": {"enforce_eager": True, "max_num_seqs": 16},
    }
    quiet = write_job(tmp_path / "quiet", model=model, store={"uri": "runs"}, rows=80)
    assert start(quiet).wait(900) == 0
    wild = write_job(tmp_path / "wild", model=model, store={"uri": "runs"}, rows=80)
    rng = random.Random(3)
    run_with_kills(wild, rng, kills=NUM_KILLS, due=after_pauses(rng, 45.0), limit_s=1800)
    assert rows_of(wild.parent) == rows_of(quiet.parent)
    verify(wild, ["chaos"])
