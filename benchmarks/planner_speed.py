"""How long the planner thinks, and in how much memory, on pools from 9 to 480 nodes.

Each pool is planned in a process of its own: CPU seconds of that process without imports (the
machine is shared, so that wall time says little), peak memory, value and gap. The reference is
what ShuntServe's authors report for their planner on 32 vCPUs.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

from benchmarks.report import Row, write
from placement.answer.plan_builder import answer
from placement.catalogue.constants import load_constants
from placement.catalogue.hardware import load_catalogue
from placement.catalogue.known_model import known_shape
from placement.catalogue.offering import make_offering
from placement.question.interruption import InterruptionCost
from placement.question.objective import Constraints, Kind, Objective
from placement.question.question import Question
from placement.question.workload import LengthPair, workload_of

_SIZES = {
    "g4dn": ("xlarge", "12xlarge"),
    "g5": ("xlarge", "12xlarge", "48xlarge"),
    "g6": ("xlarge", "12xlarge", "48xlarge"),
    "g6e": ("xlarge", "12xlarge", "48xlarge"),
    "p4d": ("24xlarge",),
    "p4de": ("24xlarge",),
    "p5": ("48xlarge",),
    "p6-b200": ("48xlarge",),
}
FIFTEEN = [f"{family}.{size}" for family, sizes in _SIZES.items() for size in sizes]
# Name, nodes by type, most stages, target in seconds, ShuntServe's seconds.
POOLS = {
    "9 nodes of 3 types": (2.0, 36.6),
    "480 nodes of 15 types": (60.0, 41 * 3600.0),
    "368 nodes of 46 types": (120.0, None),
}


def pool(name: str) -> tuple[dict[str, int], int]:
    """Nodes per instance type, and the most stages of a pipeline."""
    if name.startswith("9 "):
        return {"g5.12xlarge": 2, "g6.12xlarge": 3, "g6e.xlarge": 4}, 12
    if name.startswith("480"):
        return dict.fromkeys(FIFTEEN, 32), 8
    priced = [i.name for i in load_catalogue().instances.values() if i.ondemand_usd_per_hour]
    return dict.fromkeys(sorted(priced)[:46], 8), 8


def plan_once(name: str) -> dict[str, float]:
    """Plan the pool in this process."""
    nodes, max_stages = pool(name)
    catalogue = load_catalogue()
    offerings = tuple(
        make_offering(
            catalogue,
            instance_type=kind,
            market="on-demand",
            zone="",
            usd_per_hour=None,
            max_nodes=count,
            interruptions_per_hour=None,
            default_spot_rate=0.0,
        )
        for kind, count in nodes.items()
    )
    question = Question(
        shape=known_shape("Llama-3.1-70B-Instruct"),
        workload=workload_of([LengthPair(763, 232)], num_prompts=100_000, max_context=2048),
        offerings=offerings,
        objective=Objective(Kind.THROUGHPUT),
        constants=load_constants(),
        engine="vllm",
        constraints=Constraints(max_stages=max_stages),
        interruption=InterruptionCost(),
    )
    start = time.process_time()
    found = answer(question)
    return {
        "cpu_s": time.process_time() - start,
        "gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "value": found.plan.certificate.value,
        "gap": found.plan.certificate.gap,
        "pipelines": len(found.plan.pipelines),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pool", help="plan this pool alone and print JSON")
    arguments = parser.parse_args()
    if arguments.pool:
        print(json.dumps(plan_once(arguments.pool)))
        return
    rows: list[Row] = []
    for name, (target, theirs) in POOLS.items():
        repeats = 3 if name.startswith("9 ") else 1
        runs = [_separate(name) for _ in range(repeats)]
        seconds = sorted(run["cpu_s"] for run in runs)
        best = runs[0]
        rows += [
            Row(
                f"{name}: search, one core",
                seconds[len(seconds) // 2],
                "CPU s",
                (seconds[0], seconds[-1]),
                theirs,
                f"< {target:g}",
                seconds[len(seconds) // 2] < target,
            ),
            Row(f"{name}: memory", best["gb"], "GB", None, None, "< 2", best["gb"] < 2),
            Row(f"{name}: throughput", best["value"], "requests/s"),
            Row(f"{name}: gap to bound", best["gap"], ""),
        ]
    write("planner_speed", rows)


def _separate(name: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.planner_speed", "--pool", name],
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout)


if __name__ == "__main__":
    main()
