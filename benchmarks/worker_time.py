"""Where a worker's time goes: from the engine being up to the last row being durable, by phase.

Wall seconds of each phase, CPU seconds by process and thread, and the engine core's steps by what
their batch was (full, or why not), next to plain `vllm.LLM.generate` on the same prompts, engine
arguments and cores. Counts hold on a busy machine; seconds do not.

    python -m benchmarks.worker_time [--rounds 3] [--seed 0] [--only varied] [--store s3] [--small]
"""

import statistics
import sys

from benchmarks.cpu_time import OURS, core_s, outside_core_s
from benchmarks.report import Row, write
from benchmarks.throughput import Told, alternate, options_of, workloads_of

STEP_KINDS = ("total", "full", "budget", "memory", "starved", "tail")
DURABLE_WITHIN_S = 0.1
_THREADS_SHOWN = 6


def main() -> int:
    """Alternate the two, print the table, write the results."""
    options = options_of(sys.argv[1:], rounds=3, only="varied")
    workloads = workloads_of(options)
    told = alternate(options, workloads)
    rows: list[Row] = []
    for position, workload in enumerate(workloads):
        shunt, plain = ([one[position] for one in told[kind]] for kind in ("shunt", "plain"))
        rows += [*_phases(workload.name, shunt, plain), *_cpu(workload.name, shunt, plain)]
        rows += [
            _row(f"{workload.name}: steps, {kind}", _steps(shunt, kind), _steps(plain, kind), "")
            for kind in STEP_KINDS
        ]
    write("worker_time", rows)
    return 0


def _phases(name: str, shunt: list[Told], plain: list[Told]) -> list[Row]:
    last_s = [one["seconds"] - one["last_ended_s"] for one in shunt]
    return [
        _of(f"{name}: engine up to first request admitted", shunt, plain, "first_admitted_s"),
        _of(f"{name}: engine up to first step", shunt, plain, "first_step_s"),
        _of(f"{name}: engine up to last step scheduled", shunt, plain, "last_step_s"),
        _of(f"{name}: engine up to last request ended", shunt, plain, "last_ended_s"),
        Row(
            f"{name}: last request ended to last row durable",
            statistics.median(last_s),
            "s",
            (min(last_s), max(last_s)),
            target=f"<= {DURABLE_WITHIN_S}",
            met=statistics.median(last_s) <= DURABLE_WITHIN_S,
        ),
        _of(f"{name}: all", shunt, plain, "seconds"),
    ]


def _cpu(name: str, shunt: list[Told], plain: list[Told]) -> list[Row]:
    """CPU seconds: of the engine core, outside it per token, and of our own dearest threads."""
    rows = [
        _row(
            f"{name}: CPU of the engine core",
            [core_s(one["cpu_s"]) for one in shunt],
            [core_s(one["cpu_s"]) for one in plain],
            "s",
        ),
        _row(
            f"{name}: CPU outside the engine core, per token",
            [1e6 * outside_core_s(one["cpu_s"]) / one["tokens"] for one in shunt],
            [1e6 * outside_core_s(one["cpu_s"]) / one["tokens"] for one in plain],
            "us",
        ),
    ]
    outside = {thread for thread in shunt[0]["cpu_s"] if thread.startswith(f"{OURS}/")}
    for thread in list(dict.fromkeys([*shunt[0]["cpu_s"]]))[:_THREADS_SHOWN]:
        place = "ours" if thread in outside else "core"
        ours, theirs = ([one["cpu_s"].get(thread, 0.0) for one in kind] for kind in (shunt, plain))
        rows.append(_row(f"{name}: CPU of {thread} ({place})", ours, theirs, "s"))
    return rows


def _of(metric: str, shunt: list[Told], plain: list[Told], field: str) -> Row:
    ours, theirs = ([one[field] for one in kind] for kind in (shunt, plain))
    return _row(metric, ours, theirs, "s")


def _steps(told: list[Told], kind: str) -> list[float]:
    return [float(one["steps"][kind]) for one in told]


def _row(metric: str, ours: list[float], theirs: list[float], unit: str) -> Row:
    reference = statistics.median(theirs) or None
    return Row(metric, statistics.median(ours), unit, (min(ours), max(ours)), reference)


if __name__ == "__main__":
    sys.exit(main())
