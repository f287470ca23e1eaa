"""Tokens per second of a shunt worker, checkpoints on, over those of plain `vllm.LLM.generate`.

Same prompts, engine arguments and cores; the two alternate, each in a process of its own, and only
generation is timed, not the start of the engine. Two prompt sets: prompts that differ, and prompts
that share long prefixes but come shuffled, where serving order can win.

    python -m benchmarks.throughput
"""

import json
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.report import Row, paired_ratio, write

REPOSITORY = Path(__file__).resolve().parent.parent
WORKER_PYTHON = REPOSITORY / ".venv/worker/bin/python"
MODEL = REPOSITORY / ".cache/models/SmolLM2-135M-Instruct"
ROUNDS = 3
ROWS = 96
OUTPUT_TOKENS = 64
MAX_NUM_SEQS = 32
TARGET = 0.97


def main() -> int:
    """Run all rounds, print the table, write the results."""
    rows: list[Row] = []
    for name, prompts in (("varied", varied_prompts()), ("shared prefix", shared_prefix_prompts())):
        rates: dict[str, list[float]] = {"plain": [], "shunt": []}
        extra: list[dict[str, Any]] = []
        for _ in range(ROUNDS):
            for kind in rates:
                told = run_child(kind, prompts)
                rates[kind].append(told["tokens"] / told["seconds"])
                if kind == "shunt":
                    extra.append(told)
        rows += [
            paired_ratio(
                f"{name}: shunt tokens/s over plain vLLM",
                rates["shunt"],
                rates["plain"],
                at_least=TARGET,
            ),
            Row(
                metric=f"{name}: tokens/s of the worker",
                value=statistics.median(rates["shunt"]),
                unit="tok/s",
                reference=statistics.median(rates["plain"]),
            ),
            Row(
                metric=f"{name}: segment bytes per 1,000 tokens",
                value=statistics.median(1000 * t["bytes"] / t["tokens"] for t in extra),
                unit="bytes",
            ),
            Row(
                metric=f"{name}: segment puts per 1,000 tokens",
                value=statistics.median(1000 * t["puts"] / t["tokens"] for t in extra),
                unit="puts",
            ),
        ]
    write("throughput", rows)
    return 0


def varied_prompts() -> list[str]:
    """Prompts that have nothing in common."""
    rng = random.Random(0)
    words = ["river", "engine", "garden", "market", "planet", "letter", "bridge", "winter"]
    return [
        f"{n}: write about {' and '.join(rng.sample(words, 4))} in {rng.randrange(3, 30)} lines."
        for n in range(ROWS)
    ]


def shared_prefix_prompts() -> list[str]:
    """Eight long instructions, each before twelve questions, shuffled."""
    instructions = [
        f"You are assistant number {i}. " + f"Rule {i}: answer briefly and politely. " * 24
        for i in range(8)
    ]
    prompts = [f"{instructions[n % 8]}Question {n}: what is {n} plus {n}?" for n in range(ROWS)]
    random.Random(1).shuffle(prompts)
    return prompts


def run_child(kind: str, prompts: list[str]) -> dict[str, Any]:
    """One measurement in the worker environment."""
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "prompts.json").write_text(json.dumps(prompts))
        argv = [str(WORKER_PYTHON), "-m", "benchmarks.throughput_child", kind, directory]
        subprocess.run(argv, cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)
        return json.loads((Path(directory) / "told.json").read_text())


if __name__ == "__main__":
    sys.exit(main())
