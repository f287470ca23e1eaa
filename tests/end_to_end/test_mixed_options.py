"""Every class of sampling options in one job, workers of real vLLM killed under it."""

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from shunt.demo_model.smollm2 import ensure_smollm2
from tests.end_to_end.chaos import (
    after_saves,
    lay_out,
    rows_of,
    run_with_kills,
    start,
    verify,
)
from workers.testing.option_cases import CASES, PROMPTS

SAID = (
    " The capital of France is Paris, a city known for its history, culture, and the food that"
    " people from all over the world come to enjoy in its streets."
)
"""Stands for the greedy answer, out of which the cases take their stop strings."""
LOGPROB_TOLERANCE = 1e-3
RANK_TOLERANCE = 0.01


def write_job(directory: Path, *, num_prompts: int, workers: int) -> Path:
    """One row per class of options and prompt, and some with several choices."""
    rows: list[dict[str, Any]] = []
    for number, prompt in enumerate(PROMPTS[:num_prompts]):
        for name, case in CASES.items():
            sampling = case(number, SAID).model_dump(by_alias=True, exclude_unset=True)
            rows.append({"id": f"{name}, {number}", "prompt": prompt, "sampling": sampling})
        choices = {"n": 3, "temperature": 0.9, "max_tokens": 40, "logprobs": 1}
        rows.append({"id": f"three choices, {number}", "prompt": prompt, "sampling": choices})
    job = {
        "name": "mixed",
        "model": {
            "path": str(ensure_smollm2().resolve()),
            "dtype": "float32",
            "max_model_len_tokens": 512,
            "engine": {"enforce_eager": True, "max_num_seqs": 8},
        },
        "store": {"uri": "runs"},
        "fleet": {"workers": workers, "max_crashes": 100},
        "shard_prompts": 8,
        "checkpoint_interval_s": 0.3,
        "lease_term_s": 4,
    }
    return lay_out(directory, rows, job)


def _generates(pid: int) -> bool:
    """Whether it is a worker, its engine core or a rank, and no bystander of multiprocessing."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return False
    return b"VLLM" in command or b"-m\0workers\0" in command


def assert_same(quiet: Sequence[Mapping[str, Any]], wild: Sequence[Mapping[str, Any]]) -> None:
    """Equal to the byte, but for logprobs: a prefill moves them in their sixth digit."""
    assert len(quiet) == len(wild)
    for one, other in zip(quiet, wild, strict=True):
        assert _same(one, other), (one, other)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        if "rank" in one and "logprobs" in one:
            return _same_position(one, other)
        return one.keys() == other.keys() and all(_same(one[k], other[k]) for k in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def _same_position(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """The same token; where two others are as likely, either may be the next best, and the rank
    of a token among thousands like it is not exact."""
    gaps = [abs(a - b) for a, b in zip(one["logprobs"], other["logprobs"], strict=True)]
    near = abs(one["rank"] - other["rank"]) <= RANK_TOLERANCE * one["rank"]
    return one["token_ids"][0] == other["token_ids"][0] and max(gaps) < LOGPROB_TOLERANCE and near


@pytest.mark.parametrize(
    ("kills", "num_prompts", "workers"),
    [
        pytest.param(1, 1, 1, marks=pytest.mark.timeout(900)),
        pytest.param(20, 3, 2, marks=[pytest.mark.timeout(5400), pytest.mark.soak]),
    ],
)
def test_kills_change_no_option(tmp_path: Path, kills: int, num_prompts: int, workers: int) -> None:
    """A start of real vLLM is half a minute of CPU: by default there are three."""
    quiet = write_job(tmp_path / "quiet", num_prompts=num_prompts, workers=1)
    assert start(quiet).wait(600) == 0
    wild = write_job(tmp_path / "wild", num_prompts=num_prompts, workers=workers)
    rng = random.Random(kills)
    done = run_with_kills(
        wild,
        rng,
        kills=kills,
        due=after_saves(rng, wild),
        may_die=_generates,
        limit_s=240 + 120 * kills,
    )
    assert done == kills
    assert_same(rows_of(quiet.parent), rows_of(wild.parent))
    (path,) = wild.parent.glob("results/*/results.jsonl")
    moved = [row for row in map(json.loads, path.read_text().splitlines()) if row["num_resumes"]]
    assert len(moved) >= kills
    assert {row["resumption"] for row in moved} == {"state-exact"}
    verify(wild, ["mixed"])
