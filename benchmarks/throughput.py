"""Tokens per second of a shunt worker, checkpoints on, over those of plain `vllm.LLM.generate`.

Same prompts, engine arguments and cores. The two alternate, each in a process of its own, which
starts its engine once and then serves every workload; only generation is timed: for shunt from the
engine being up to the last row being durable. Three workloads: `short` (96 rows, where what is paid
once weighs most), `varied` (answers of different lengths) and `shared` (long shared prefixes,
shuffled, with a KV cache that does not hold them all; plain vLLM is given the same order).

    python -m benchmarks.throughput [--rounds 5] [--seed 0] [--store directory|s3]
        [--only short,varied,shared] [--rows 256] [--small]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from benchmarks.cpu_time import outside_core_s
from benchmarks.report import Row, paired_ratio, write
from benchmarks.workloads import MAKERS, Workload, small
from shunt.store.config import StoreConfig
from shunt.testing.s3_server import S3Server, s3_server

REPOSITORY = Path(__file__).resolve().parent.parent
WORKER_PYTHON = REPOSITORY / ".venv/worker/bin/python"
MODEL = REPOSITORY / ".cache/models/SmolLM2-135M-Instruct"
TARGETS = {"short": 0.97, "varied": 1.0, "shared prefix": 1.3}
MAX_OUTSIDE = 0.02
"""Of all CPU time of a worker, what may be spent outside the engine core."""

Told = dict[str, Any]


def main() -> int:
    """Run all rounds, print the table, write the results."""
    options = options_of(sys.argv[1:])
    workloads = workloads_of(options)
    told = alternate(options, workloads)
    rows: list[Row] = []
    for position, workload in enumerate(workloads):
        plain = [one[position] for one in told["plain"]]
        rows += rows_of(workload, plain, [one[position] for one in told["shunt"]])
    write("throughput" if options.store == "directory" else "throughput_s3", rows)
    return 0


def alternate(
    options: argparse.Namespace, workloads: list[Workload]
) -> dict[str, list[list[Told]]]:
    """Plain vLLM and shunt in turns: what each told, by round and workload."""
    told: dict[str, list[list[Told]]] = {"plain": [], "shunt": []}
    serving = s3_server() if options.store == "s3" else nullcontext()
    with tempfile.TemporaryDirectory() as directory, serving as server:
        for number in range(options.rounds):
            for kind in told:
                folder = Path(directory) / f"{kind}-{number}"
                told[kind].append(run_child(kind, workloads, folder, server))
    return told


def options_of(
    argv: Sequence[str], *, rounds: int = 5, only: str = ",".join(MAKERS)
) -> argparse.Namespace:
    """The command line; shared with `benchmarks.worker_time`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--seed", type=int, default=0, help="other prompts and lengths")
    parser.add_argument("--store", choices=("directory", "s3"), default="directory")
    parser.add_argument("--only", default=only, help="some of the workloads")
    parser.add_argument("--rows", type=int, default=0, help="rows of each, where not the default")
    parser.add_argument("--small", action="store_true", help="to count, not to time")
    return parser.parse_args(argv)


def workloads_of(options: argparse.Namespace) -> list[Workload]:
    """Those asked for. Workloads of different engines cannot share a process."""
    made: list[Workload] = []
    for name in options.only.split(","):
        maker = MAKERS[name]
        made.append(maker(options.seed, options.rows) if options.rows else maker(options.seed))
    return [small(workload) for workload in made] if options.small else made


def rows_of(workload: Workload, plain: list[Told], shunt: list[Told]) -> list[Row]:
    """The table of one workload; lists are by round."""
    name = workload.name
    rates = [[one["tokens"] / one["seconds"] for one in kind] for kind in (shunt, plain)]
    shares = [
        [outside_core_s(one["cpu_s"]) / sum(one["cpu_s"].values()) for one in kind]
        for kind in (shunt, plain)
    ]
    per_1000 = [
        [1e3 * sum(one["cpu_s"].values()) / one["tokens"] for one in kind]
        for kind in (shunt, plain)
    ]
    share = statistics.median(shares[0])
    return [
        paired_ratio(f"{name}: shunt tokens/s over plain vLLM", *rates, at_least=TARGETS[name]),
        _row(f"{name}: tokens/s", rates, "tok/s"),
        _row(f"{name}: CPU seconds per 1,000 tokens", per_1000, "s"),
        Row(
            f"{name}: share of CPU outside the engine core",
            share,
            "",
            (min(shares[0]), max(shares[0])),
            statistics.median(shares[1]),
            f"<= {MAX_OUTSIDE}",
            share <= MAX_OUTSIDE,
        ),
        _row(f"{name}: steps", _steps(shunt, plain, "total"), "steps"),
        _row(f"{name}: steps with a full batch", _steps(shunt, plain, "full"), "steps"),
        _row(f"{name}: steps starved of requests", _steps(shunt, plain, "starved"), "steps"),
        _row(
            f"{name}: tokens computed, prompt and output",
            [[float(one["scheduled_tokens"]) for one in kind] for kind in (shunt, plain)],
            "tokens",
        ),
        _row(f"{name}: segment puts", [[float(one["segments"]) for one in shunt]], "puts"),
    ]


def _steps(shunt: list[Told], plain: list[Told], kind: str) -> list[list[float]]:
    return [[float(one["steps"][kind]) for one in told] for told in (shunt, plain)]


def _row(metric: str, values: list[list[float]], unit: str) -> Row:
    """The median of ours over the rounds; that of plain vLLM is the reference."""
    ours = values[0]
    reference = statistics.median(values[1]) if len(values) > 1 else None
    return Row(metric, statistics.median(ours), unit, (min(ours), max(ours)), reference)


def run_child(
    kind: str, workloads: list[Workload], folder: Path, server: S3Server | None
) -> list[Told]:
    """All workloads, by their order; those of one kind of engine share a process."""
    told: dict[str, Told] = {}
    for kv_blocks in {workload.kv_blocks: None for workload in workloads}:
        alike = [workload for workload in workloads if workload.kv_blocks == kv_blocks]
        answers = _run(kind, alike, folder / f"kv-{kv_blocks}", server)
        told |= {workload.name: one for workload, one in zip(alike, answers, strict=True)}
    return [told[workload.name] for workload in workloads]


def _run(kind: str, workloads: list[Workload], folder: Path, server: S3Server | None) -> list[Told]:
    folder.mkdir(parents=True)
    environment = {**os.environ, "SHUNT_BENCHMARK_MODEL": str(MODEL)}
    store = StoreConfig(uri=str(folder / "store"))
    if server is not None:
        environment["AWS_ACCESS_KEY_ID"] = server.credentials.access_key_id
        environment["AWS_SECRET_ACCESS_KEY"] = server.credentials.secret_access_key
        uri = f"s3://{server.bucket}/{folder.parent.name}/{folder.name}"
        store = StoreConfig(uri=uri, endpoint_url=server.endpoint_url, region=server.region)
    asked = {
        "workloads": [workload.to_json() for workload in workloads],
        "store": store.model_dump(mode="json"),
    }
    (folder / "asked.json").write_text(json.dumps(asked))
    argv = [str(WORKER_PYTHON), "-m", "benchmarks.throughput_child", kind, str(folder)]
    subprocess.run(argv, cwd=REPOSITORY, env=environment, check=True, stdout=subprocess.DEVNULL)
    return json.loads((folder / "told.json").read_text())


if __name__ == "__main__":
    sys.exit(main())
