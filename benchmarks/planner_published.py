"""Our search against ShuntServe's published plans, both under ShuntServe's published estimator.

The pool is that of its evaluation: 2x g5.12xlarge, 3x g6.12xlarge, 4x g6e.xlarge; prompts of 763
and outputs of 232 tokens; fp16. First its own plans are priced (it reports 2.8305 and 9.4241
requests/s), then ours: with TP fixed to the node as it does, and with TP free.
"""

import time
from collections.abc import Sequence

from benchmarks.baselines.evaluation import GivenStage, given_value_at, largest_concurrency
from benchmarks.baselines.published_estimator import PublishedEstimator, published_gpus
from benchmarks.report import Row, write
from placement.catalogue.hardware import load_catalogue
from placement.catalogue.known_model import known_shape
from placement.catalogue.offering import SupplyGroup, group_offerings, make_offering
from placement.estimate.roofline_model import units_of
from placement.search.column_search import Limits, enumerate_counts
from placement.search.master import Goal
from placement.search.small_pool import open_pool

PROMPT, OUTPUT = 763, 232
POOL = (("g5.12xlarge", 2), ("g6.12xlarge", 3), ("g6e.xlarge", 4))

# Pipelines of the authors' plans: (unit name, layers), from their ModelPlacement results.
_G5, _G6, _G6E = "g5.12xlarge:tp4", "g6.12xlarge:tp4", "g6e.xlarge:tp1"
THEIRS = {
    "Llama-3.1-70B-Instruct": (
        ((_G6, 14), (_G6, 14), (_G6E, 13), (_G6E, 13), (_G6E, 13), (_G6E, 13)),
        ((_G5, 26), (_G5, 26), (_G6, 28)),
    ),
    "Qwen3-32B": (
        ((_G6E, 16), (_G6E, 16), (_G6E, 16), (_G6E, 16)),
        ((_G6, 24), (_G6, 25), (_G6, 15)),
        ((_G5, 64),),
        ((_G5, 64),),
    ),
}
PUBLISHED = {"Llama-3.1-70B-Instruct": 2.8305, "Qwen3-32B": 9.4241}
WANTED = {"Llama-3.1-70B-Instruct": 1.50, "Qwen3-32B": 1.35}
MAX_STAGES = 13  # theirs


def evaluation_groups() -> tuple[SupplyGroup, ...]:
    """The nine nodes, on demand at catalogue prices."""
    catalogue = load_catalogue()
    return group_offerings(
        [
            make_offering(
                catalogue,
                instance_type=name,
                market="on-demand",
                zone="us-west-2",
                usd_per_hour=None,
                max_nodes=count,
                interruptions_per_hour=None,
                default_spot_rate=0.0,
            )
            for name, count in POOL
        ]
    )


def published_model(
    name: str, groups: tuple[SupplyGroup, ...], allowed_tp: Sequence[int] | None = None
) -> PublishedEstimator:
    """Their estimator for this pool."""
    gpus = published_gpus()
    shape = known_shape(name)
    units = units_of(groups, shape, allowed_tp=allowed_tp)
    cards = tuple(gpus[groups[unit.group].instance.gpu.name] for unit in units)
    return PublishedEstimator(shape, units, cards, PROMPT, OUTPUT)


def theirs(model: PublishedEstimator, name: str) -> float:
    """Their plan's requests/s, all pipelines at the concurrency that fits."""
    index = {unit.name: i for i, unit in enumerate(model.units)}
    total = 0.0
    for pipeline in THEIRS[name]:
        stages = [GivenStage(index[unit], layers) for unit, layers in pipeline]
        total += given_value_at(model, stages, largest_concurrency(model, stages))
    return total


def ours(
    model: PublishedEstimator, groups: tuple[SupplyGroup, ...], *, whole: bool
) -> tuple[float, float, float, list[str]]:
    """Requests/s, bound, seconds, and the pipelines in words."""
    start = time.perf_counter()
    counts = enumerate_counts(model.unit_list, groups, Limits(MAX_STAGES, False, whole))
    assert counts is not None
    pool = open_pool(model, groups, counts)
    found = pool.best(Goal(), gap=0.005, time_limit_s=60)
    assert found is not None
    purchase, bound = found
    value = float(pool.values @ purchase.x)
    words = [
        f"{n}x ["
        + " | ".join(
            f"{int(c)}x {unit.name}"
            for unit, c in zip(model.units, pool.counts[i], strict=True)
            if c
        )
        + f"] {pool.values[i]:.3f} req/s, {int(pool.concurrency[i])} in flight"
        for i, n in enumerate(purchase.x)
        if n
    ]
    return value, bound, time.perf_counter() - start, words


def main() -> None:
    groups = evaluation_groups()
    rows: list[Row] = []
    for name, reference in PUBLISHED.items():
        free = published_model(name, groups)
        reproduced = theirs(free, name)
        off = abs(reproduced / reference - 1)
        rows.append(
            Row(
                f"{name}: ShuntServe's plan, reproduced",
                reproduced,
                "requests/s",
                None,
                reference,
                "within 2 %",
                off <= 0.02,
            )
        )
        fixed = published_model(name, groups, allowed_tp=None)
        wide = tuple(u for u in fixed.unit_list if u.tp == groups[u.group].instance.gpu_count)
        gpus = tuple(g for u, g in zip(fixed.unit_list, fixed.gpu_of, strict=True) if u in wide)
        fixed = PublishedEstimator(fixed.shape, wide, gpus, PROMPT, OUTPUT)
        value, bound, seconds, words = ours(fixed, groups, whole=True)
        rows.append(Row(f"{name}: ours, TP = node", value, "requests/s", None, reproduced))
        rows.append(
            Row(f"{name}: ours, TP = node, gap to bound", bound / value - 1, "", None, None)
        )
        print(name, "TP = node", *words, sep="\n  ")
        value, bound, seconds, words = ours(free, groups, whole=False)
        rows.append(Row(f"{name}: ours, TP free", value, "requests/s", None, reproduced))
        gain = value / reproduced
        rows.append(
            Row(
                f"{name}: ours / ShuntServe's",
                gain,
                "x",
                None,
                1.0,
                f">= {WANTED[name]:.2f}",
                gain >= WANTED[name],
            )
        )
        gap = bound / value - 1
        rows.append(Row(f"{name}: gap to bound", gap, "", None, None, "<= 0.05", gap <= 0.05))
        rows.append(Row(f"{name}: search", seconds, "s"))
        print(name, "TP free", *words, sep="\n  ")
    write("planner_published", rows)


if __name__ == "__main__":
    main()
