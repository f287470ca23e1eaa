"""Kill anything, again and again: the rows are those of a quiet run, and nothing stays behind."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from shunt.testing.s3_server import S3Server

REPOSITORY = Path(__file__).resolve().parent.parent.parent
NUM_KILLS = 20
QUICK = {"path": "none", "engine_kind": "fake"}
SLOW = {**QUICK, "fake_tokens_per_s": 10, "engine": {"max_num_seqs": 4}}
"""The same tokens at a pace that leaves half a minute and more of work to kill."""


def write_job(directory: Path, *, model: dict[str, Any], store: dict[str, Any], rows: int) -> Path:
    """A job of mixed lengths on two workers, with short leases so that takeovers are quick."""
    directory.mkdir(parents=True, exist_ok=True)
    lines = [
        json.dumps({"id": f"row-{n}", "prompt": f"Tell me about the number {n}.", "topic": n % 7})
        for n in range(rows)
    ]
    (directory / "prompts.jsonl").write_text("\n".join(lines))
    job = {
        "name": "chaos",
        "model": model,
        "input": {"path": "prompts.jsonl"},
        "sampling": {"max_tokens": 48},
        "store": store,
        "fleet": {"workers": 2, "max_crashes": 20},
        "shard_prompts": 20,
        "checkpoint_interval_s": 0.5,
        "lease_term_s": 2,
    }
    path = directory / "job.yaml"
    path.write_text(yaml.safe_dump(job))
    return path


def start(job: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "flows", "run", str(job), "--no-prefect"],
        cwd=job.parent,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def descendants(root: int) -> list[int]:
    """Living processes below `root`."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
        if fields[0] != "Z":
            parents[int(path.parent.name)] = int(fields[1])
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found[1:]


def run_with_kills(job: Path, rng: random.Random, *, kills: int, pause_s: float) -> int:
    """Start the job until it ends well; at random moments SIGKILL the driver or one below it."""
    done = 0
    driver = start(job)
    seen: set[int] = set()
    deadline_s = time.monotonic() + 900
    while True:
        assert time.monotonic() < deadline_s, "the run does not end"
        try:
            driver.wait(rng.uniform(0.3, 1.0) * pause_s if done < kills else 1.0)
        except subprocess.TimeoutExpired:
            if done < kills:
                below = descendants(driver.pid)
                seen |= set(below)
                victim = rng.choice([driver.pid, *below, *below])
                os.kill(victim, signal.SIGKILL)
                done += 1
            continue
        if driver.returncode == 0:
            break
        driver = start(job)
    wait_until_gone(seen)
    return done


def wait_until_gone(pids: set[int]) -> None:
    """Workers of a killed driver drain and leave; none may outlive that."""
    deadline_s = time.monotonic() + 30
    while left := [pid for pid in pids if Path(f"/proc/{pid}").exists() and not zombie(pid)]:
        assert time.monotonic() < deadline_s, f"left behind: {left}"
        time.sleep(0.2)


def zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def rows_of(directory: Path) -> list[dict[str, Any]]:
    """Result rows without what tells how they came about."""
    (path,) = directory.glob("results/*/results.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        for column in ("resumption", "resume_reason", "num_resumes"):
            del row[column]
    return rows


def verify(job: Path, run_arguments: Sequence[str]) -> None:
    """The proof of the command line."""
    subprocess.run(
        [sys.executable, "-m", "flows", "verify", *run_arguments],
        cwd=job.parent,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        check=True,
        timeout=120,
    )


@pytest.mark.timeout(900)
def test_twenty_kills_change_nothing_on_a_directory(tmp_path: Path) -> None:
    quiet = write_job(tmp_path / "quiet", model=QUICK, store={"uri": "runs"}, rows=100)
    assert start(quiet).wait(300) == 0
    wild = write_job(tmp_path / "wild", model=SLOW, store={"uri": "runs"}, rows=100)
    kills = run_with_kills(wild, random.Random(1), kills=NUM_KILLS, pause_s=2.0)
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
    kills = run_with_kills(wild, random.Random(2), kills=NUM_KILLS, pause_s=2.5)
    assert kills == NUM_KILLS
    assert rows_of(wild.parent) == rows_of(quiet.parent)
    verify(wild, ["chaos", "--store", uri, "--endpoint-url", s3.endpoint_url])


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_twenty_kills_change_nothing_with_real_vllm(tmp_path: Path) -> None:
    from shunt.demo_model.smollm2 import ensure_smollm2

    model = {
        "path": str(ensure_smollm2()),
        "dtype": "float32",
        "max_model_len_tokens": 512,
        "engine": {"enforce_eager": True, "max_num_seqs": 16},
    }
    quiet = write_job(tmp_path / "quiet", model=model, store={"uri": "runs"}, rows=80)
    assert start(quiet).wait(900) == 0
    wild = write_job(tmp_path / "wild", model=model, store={"uri": "runs"}, rows=80)
    run_with_kills(wild, random.Random(3), kills=NUM_KILLS, pause_s=45.0)
    assert rows_of(wild.parent) == rows_of(quiet.parent)
    verify(wild, ["chaos"])
