"""Our search against how others choose, on ShuntServe's pool, under both estimators.

Steady requests/s for prompts of 763 and outputs of 232 tokens: under ShuntServe's published
estimator, and under ours with the constants of vLLM 0.8 V0 and of the engine that plans are for.
The spread of our rows is from the value to its bound. `+ 30 ms a step` puts the estimator's own
doubt on the gain: so much more host time per stage and step.
"""

import json

from benchmarks.baselines.methods import METHODS, Bench
from benchmarks.planner_published import evaluation_groups, published_model
from benchmarks.report import RESULTS, Row, write
from placement.catalogue.constants import Constants, load_constants
from placement.catalogue.known_model import known_shape
from placement.estimate.roofline_model import RooflineModel, units_of
from placement.estimate.stage_table import StageModel
from placement.question.interruption import InterruptionCost
from placement.question.workload import LengthPair, workload_of
from placement.search.column_search import Limits, enumerate_counts
from placement.search.master import Goal
from placement.search.small_pool import open_pool

MODELS = ("Llama-3.1-70B-Instruct", "Qwen3-32B")
MAX_STAGES = 12


def our_model(name: str, engine: str, constants: Constants) -> RooflineModel:
    groups = evaluation_groups()
    shape = known_shape(name)
    work = workload_of([LengthPair(763, 232)], num_prompts=100_000, max_context=2048)
    return RooflineModel(
        shape,
        work,
        groups,
        constants,
        constants.engine(engine),
        units_of(groups, shape),
        1024,
        InterruptionCost(),
    )


def ours(model: StageModel, *, gap: float) -> tuple[float, float]:
    """Requests/s and bound."""
    groups = evaluation_groups()
    counts = enumerate_counts(tuple(model.units), groups, Limits(MAX_STAGES, False, False))
    assert counts is not None
    pool = open_pool(model, groups, counts)
    found = pool.best(Goal(), gap=gap, time_limit_s=30)
    assert found is not None
    return float(pool.values @ found[0].x), found[1]


def slower(constants: Constants, engine: str) -> Constants:
    """30 ms more host time per stage and step."""
    own = constants.engine(engine)
    changed = own.model_copy(update={"host_step_s": own.host_step_s + 0.030})
    return constants.model_copy(update={"engines": {**constants.engines, engine: changed}})


def recorded(name: str) -> tuple[float, float]:
    """Our value and bound under the published estimator, from planner_published's last run: that
    search takes minutes."""
    rows = json.loads((RESULTS / "planner_published.json").read_text())["rows"]
    by_metric = {row["metric"]: row["value"] for row in rows}
    value = by_metric[f"{name}: ours, TP free"]
    return value, value * (1 + by_metric[f"{name}: gap to bound"])


def compare(label: str, model: StageModel, known: tuple[float, float] | None = None) -> list[Row]:
    """All methods under one estimator."""
    bench = Bench(model, evaluation_groups())
    rows: list[Row] = []
    best = 0.0
    for name, method in METHODS.items():
        value = sum(bench.value(pipeline) for pipeline in method(bench))
        rows.append(Row(f"{label}: {name}", value, "requests/s"))
        best = max(best, value)
    value, bound = known or ours(model, gap=0.02)
    rows.append(Row(f"{label}: ours", value, "requests/s", (value, bound), best))
    rows.append(Row(f"{label}: ours / best of them", value / best, "x", None, 1.0))
    return rows


def main() -> None:
    constants = load_constants()
    rows: list[Row] = []
    for name in MODELS:
        rows += compare(
            f"{name}, published estimator",
            published_model(name, evaluation_groups()),
            recorded(name),
        )
        for engine in ("vllm-0.8-v0", "vllm"):
            rows += compare(f"{name}, {engine}", our_model(name, engine, constants))
        rows += compare(
            f"{name}, vllm + 30 ms a step", our_model(name, "vllm", slower(constants, "vllm"))
        )
    write("planner_baselines", rows)


if __name__ == "__main__":
    main()
