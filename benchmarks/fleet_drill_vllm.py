"""`shunt drill --real` with real vLLM on this machine: two workers and a recorded trace.

What the command line prints, kept. The trace takes both nodes and gives them back, in three runs:
as shunt does it, with no handling, and on nodes that nobody takes. Engine starts are not sped up,
so they weigh sixty times what they weigh in life.

    python -m benchmarks.fleet_drill_vllm
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from benchmarks.report import Row, write
from shunt.drill.report import DrillArm, DrillReport
from shunt.drill.simulation import Handling

REPOSITORY = Path(__file__).resolve().parent.parent
MODEL = REPOSITORY / ".cache/models/SmolLM2-135M-Instruct"
TRACE = "v100-us-west-2a-16"
ROWS, TOKENS = 96, 96
OPTIONS = ("--speedup", "60", "--notice-s", "600", "--unnoticed", "0.3", "--json")
"""A notice of ten seconds of the wall clock: on two cores a worker needs some to save and leave."""
LIMIT_S = 900
NAMES = {
    Handling.SHUNT: "shunt",
    Handling.NONE: "no handling",
    Handling.ON_DEMAND: "on-demand",
}


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        report = _drilled(Path(name))
    rows: list[Row] = []
    for arm in report.arms:
        rows += _rows(NAMES[arm.handling], arm, report)
    if report.goodput is not None:
        rows.append(Row("goodput", report.goodput, "of undisturbed"))
    write("fleet_drill_vllm", rows)
    return 0


def _drilled(folder: Path) -> DrillReport:
    prompts = [{"id": f"row-{n}", "prompt": f"{n}: write about number {n}"} for n in range(ROWS)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in prompts))
    job = {
        "name": "drill",
        "model": {
            "path": str(MODEL),
            "dtype": "bfloat16",
            "max_model_len_tokens": 512,
            "engine": {"enforce_eager": True, "max_num_seqs": 16},
        },
        "input": {"path": "prompts.jsonl"},
        "sampling": {"max_tokens": TOKENS, "ignore_eos": True},
        "fleet": {"workers": 2},
        "shard_prompts": 12,
        "checkpoint_interval_s": 2,
        "lease_term_s": 6,
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    done = subprocess.run(
        [sys.executable, "-m", "flows", "drill", "job.yaml", "--trace", TRACE, "--real", *OPTIONS],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        text=True,
        timeout=LIMIT_S,
        check=True,
    )
    return DrillReport.model_validate_json(done.stdout)


def _rows(name: str, arm: DrillArm, report: DrillReport) -> list[Row]:
    """Times are the trace's; what a run really took is a sixtieth."""
    whole = ROWS * TOKENS
    finish_s = arm.finish_s or 0.0
    return [
        Row(f"{name}: finish", finish_s / 3600, "h"),
        Row(f"{name}: taken in", finish_s / report.speedup, "s"),
        Row(f"{name}: tokens", arm.tokens, "tokens", None, whole, None, arm.tokens == whole),
        Row(f"{name}: tokens again", arm.tokens_again, "tokens"),
        Row(f"{name}: interruptions", arm.interruptions, "nodes"),
    ]


if __name__ == "__main__":
    sys.exit(main())
