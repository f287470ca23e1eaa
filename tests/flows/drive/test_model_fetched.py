"""A run whose model is nowhere on this machine: from the hub, from a bucket, told when it fails."""

import json
import os
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
import yaml

from shunt.model.listing import ModelListing
from shunt.run.manifest import Manifest
from tests.flows.conftest import REPOSITORY
from tests.shunt.model.hub import COMMIT, Hub, hub_double

MODEL = REPOSITORY / ".cache/models/SmolLM2-135M-Instruct"


@pytest.fixture
def hub() -> Generator[Hub]:
    files = {p.name: p.read_bytes() for p in MODEL.iterdir() if p.is_file()}
    with hub_double(files) as double:
        double.model_id = "team/smol"
        yield double


def shunt(folder: Path, hub: Hub, *arguments: str, **environment: str) -> "tuple[int, str]":
    done = subprocess.run(
        [sys.executable, "-m", "flows", *arguments],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "HF_ENDPOINT": hub.url,
            "SHUNT_MODEL_CACHE": str(folder / "models"),
            "SHUNT_WORKER_PYTHON": str(REPOSITORY / ".venv/worker/bin/python"),
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    return done.returncode, done.stdout + done.stderr


def lay_out(folder: Path, **model: object) -> Path:
    rows = [{"id": str(n), "prompt": f"Count to {n}:"} for n in range(4)]
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    job = {
        "name": "fetched",
        "model": {
            "path": "team/smol",
            "dtype": "float32",
            "max_model_len_tokens": 128,
            "engine": {"max_num_seqs": 4, "enforce_eager": True},
            **model,
        },
        "input": {"path": "in.jsonl"},
        "sampling": {"max_tokens": 4, "ignore_eos": True},
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    return folder


def manifest_of(folder: Path) -> Manifest:
    (path,) = folder.glob("runs/runs/*/manifest.json")
    return Manifest.model_validate_json(path.read_text())


def test_real_vllm_works_on_a_model_of_the_hub(hub: Hub, tmp_path: Path) -> None:
    """The manifest holds the commit, the control side reads no weights, no token is stored."""
    hub.token = "hub-token-of-the-test"
    lay_out(tmp_path, token_env="TEAM_TOKEN")
    code, told = shunt(tmp_path, hub, "run", "job.yaml", "--dry-run", TEAM_TOKEN=hub.token)
    assert code == 0, told
    assert not [name for name, _, _ in hub.ranges if name.endswith(".safetensors")]
    code, told = shunt(tmp_path, hub, "run", "job.yaml", "--no-prefect", TEAM_TOKEN=hub.token)
    assert code == 0, told
    listing = manifest_of(tmp_path).model
    assert isinstance(listing, ModelListing)
    assert (listing.kind, listing.commit) == ("hub", COMMIT)
    weights = [span for span in hub.ranges if span[0].endswith(".safetensors")]
    assert len(weights) == len(set(weights)) > 0  # once, and by the worker
    assert hub.told_storage == []
    kept = [p for p in tmp_path.rglob("*") if p.is_file() and p.parent.name != "models"]
    for path in kept:
        if path.suffix in (".json", ".log", ".jsonl", ""):
            assert hub.token.encode() not in path.read_bytes(), path
    code, told = shunt(tmp_path, hub, "verify", manifest_of(tmp_path).run_id)
    assert code == 0, told


def test_a_model_that_may_not_be_read_is_one_sentence_before_anything_starts(
    hub: Hub, tmp_path: Path
) -> None:
    hub.token = "hub-token-of-the-test"
    lay_out(tmp_path)
    code, told = shunt(tmp_path, hub, "run", "job.yaml", "--no-prefect")
    assert code == 2, told
    assert "model.token_env" in told
    lay_out(tmp_path, path="team/absent", token_env="TEAM_TOKEN")
    code, told = shunt(tmp_path, hub, "run", "job.yaml", "--no-prefect", TEAM_TOKEN=hub.token)
    assert code == 2, told
    assert "no such model" in told


def test_weights_that_went_bad_meanwhile_end_the_run_and_status_says_so(
    hub: Hub, tmp_path: Path
) -> None:
    lay_out(tmp_path)
    name = next(name for name in hub.files if name.endswith(".safetensors"))
    code, told = shunt(tmp_path, hub, "run", "job.yaml", "--dry-run")
    assert code == 0, told
    hub.listed = {name: hub.files[name]}
    hub.files[name] = bytes(len(hub.files[name]))
    code, told = shunt(tmp_path, hub, "run", "job.yaml", "--no-prefect", "--set",
                       "fleet.max_crashes=0")  # fmt: skip
    assert code == 1, told
    assert f"{name} came with sha256:" in told
    code, told = shunt(tmp_path, hub, "status", manifest_of(tmp_path).run_id)
    assert "failed" in told
    assert "its listing says sha256:" in told
