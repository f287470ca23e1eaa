"""One peer each: the command that runs a batch, and how its answers are read."""

import json
import os
import stat
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
WORKER_PYTHON = REPOSITORY / ".venv/worker/bin/python"
MODEL = REPOSITORY / ".cache/models/SmolLM2-135M-Instruct"
CONTEXT_TOKENS = 1024
MAX_NUM_SEQS = 32
LEASE_TERM_S = 5.0
"""A worker that was killed is waited for so long."""

ENGINE = {
    "model": str(MODEL),
    "dtype": "float32",
    "max_model_len": CONTEXT_TOKENS,
    "max_num_seqs": MAX_NUM_SEQS,
    "enforce_eager": True,
}
"""Float32: the answer to a prompt does not depend on what else is in its batch."""

Answers = list[tuple[str, str]]
"""(row id, text) of every answer, doubled ones too."""


@dataclass(frozen=True, slots=True)
class Peer:
    """`lay_out` writes what the command needs into a folder that holds `batch.jsonl`."""

    name: str
    lay_out: Callable[[Path], None]
    command: Callable[[Path], Sequence[str]]
    answers: Callable[[Path], Answers]


def environment(folder: Path) -> Mapping[str, str]:
    """Of every peer's command: no network, all cores, and where steps are written down."""
    return {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(len(os.sched_getaffinity(0))),
        "SHUNT_STEP_LOG": str(folder),
    }


def _nothing(_folder: Path) -> None:
    pass


def _plain_command(folder: Path) -> Sequence[str]:
    engine = {**ENGINE, "scheduler_cls": "benchmarks.step_schedulers.CountedScheduler"}
    files = [str(folder / "batch.jsonl"), str(folder / "answers.jsonl")]
    return [str(WORKER_PYTHON), "-m", "benchmarks.peers.plain_llm", *files, json.dumps(engine)]


def _plain_answers(folder: Path) -> Answers:
    return [(row["id"], row["text"]) for row in _lines(folder / "answers.jsonl")]


def _batch_command(folder: Path) -> Sequence[str]:
    options = {name.replace("_", "-"): value for name, value in ENGINE.items()}
    del options["enforce-eager"]
    return [
        # What `vllm run-batch` runs; that command needs a package named vllm, and on a CPU it is
        # vllm-cpu.
        *(str(WORKER_PYTHON), "-m", "vllm.entrypoints.launchers.run_batch"),
        *("-i", str(folder / "batch.jsonl"), "-o", str(folder / "answers.jsonl")),
        *(f"--{name}={value}" for name, value in options.items()),
        "--served-model-name=model",
        "--enforce-eager",
        "--scheduler-cls=benchmarks.step_schedulers.CountedScheduler",
    ]


def _batch_answers(folder: Path) -> Answers:
    return [
        (row["custom_id"], row["response"]["body"]["choices"][0]["message"]["content"])
        for row in _lines(folder / "answers.jsonl")
        if row["response"] and row["response"]["body"]
    ]


def _lay_out_job(folder: Path) -> None:
    """A job over the same batch file; its workers are ours with the counting scheduler."""
    python = folder / "worker-python"
    python.write_text(
        f'#!/bin/sh\nshift 2\nexec {WORKER_PYTHON} -m benchmarks.peers.counted_worker "$@"\n'
    )
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    job = {
        "name": "peers",
        "model": {
            "path": str(MODEL),
            "dtype": "float32",
            "max_model_len_tokens": CONTEXT_TOKENS,
            "engine": {"enforce_eager": True, "max_num_seqs": MAX_NUM_SEQS, "cpu_kv_cache_gib": 1},
        },
        "input": {"path": "batch.jsonl"},
        "output": {"path": "results", "formats": ["jsonl"]},
        "store": {"uri": "runs"},
        "fleet": {"workers": 1, "worker_python": str(python)},
        "lease_term_s": LEASE_TERM_S,
        "checkpoint_interval_s": 5,
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(job))


def _shunt_command(folder: Path) -> Sequence[str]:
    return [sys.executable, "-m", "flows", "run", str(folder / "job.yaml"), "--no-prefect"]


def _shunt_answers(folder: Path) -> Answers:
    return [
        (row["custom_id"], row["response"]["body"]["choices"][0]["message"]["content"])
        for path in (folder / "results").glob("*/batch_output.jsonl")
        for row in _lines(path)
        if row.get("response")
    ]


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


PEERS = (
    Peer("LLM.chat", _nothing, _plain_command, _plain_answers),
    Peer("vllm run-batch", _nothing, _batch_command, _batch_answers),
    Peer("shunt", _lay_out_job, _shunt_command, _shunt_answers),
)


def faults(answers: Answers, expected: Mapping[str, str]) -> dict[str, int]:
    """Rows lost, doubled and different from what is expected."""
    seen = Counter(row_id for row_id, _ in answers)
    return {
        "lost": len(expected.keys() - seen.keys()),
        "doubled": sum(number - 1 for number in seen.values()),
        "different": sum(expected.get(row_id) != text for row_id, text in answers),
    }
