"""From a solution to the durable `Plan`, with its forecast."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from placement.answer.forecast import Forecast, Quantiles, forecast
from placement.answer.layout import PlacedPipeline, Seating, place_pipeline, seat_pipelines
from placement.catalogue.constants import ENGINE
from placement.errors import Infeasible
from placement.question.objective import Constraints, Kind
from placement.question.question import Question
from placement.search.solver import Solution, solve
from shunt.plan.plan import Certificate, NodeSlot, Pipeline, Plan, Prediction, Range, Stage

_UNITS = {
    Kind.THROUGHPUT: "requests/s",
    Kind.BUDGET: "requests/s",
    Kind.COST: "USD",
    Kind.VALUE: "prompts/USD",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """A plan with all that is needed to explain and draw it."""

    question: Question
    solution: Solution
    pipelines: tuple[PlacedPipeline, ...]
    seating: Seating
    forecast: Forecast
    plan: Plan


# Cards of benchmarks/data/vllm_v1_published.csv, which the host time of the engine is fitted to.
_MEASURED_ON_V1 = ("A100-40GB-SXM", "H100-SXM", "L40S")
# A run whose drain is a larger share of it than this is short: depth and concurrency are tried too.
_SHORT_RUN_DRAIN = 0.08
_SHORTER_STAGES = (0.5, 0.25)
_FEWER_SEQUENCES = (0.5,)


def answer(question: Question, *, version: int = 1) -> Answer:
    """Solve and place. Raises `Infeasible`.

    The search maximises steady throughput. Where the drain is a good part of the run, plans with
    shallower pipelines or fewer sequences are solved too, and the quickest to the last row wins.
    """
    if question.objective.kind is Kind.COST:
        # Late: it stands on this module.
        from placement.answer.on_time import on_time

        return on_time(question, lambda asked: build(asked, solve(asked), version=version))
    best = build(question, solve(question), version=version)
    median = best.forecast.duration_s.p50
    kind = question.objective.kind
    if (
        kind not in {Kind.THROUGHPUT, Kind.BUDGET}
        or best.forecast.drain_s < _SHORT_RUN_DRAIN * median
    ):
        return best
    steady = best
    for limits in _shorter(question.constraints):
        try:
            other = build(question, solve(replace(question, constraints=limits)), version=version)
        except Infeasible:
            continue
        if other.forecast.duration_s.p50 < best.forecast.duration_s.p50 * (1 - 1e-6):
            best = other
    return best if best is steady else _for_the_whole_run(best, steady)


def _shorter(limits: Constraints) -> Iterator[Constraints]:
    for share in _SHORTER_STAGES:
        yield replace(limits, max_stages=max(1, round(limits.max_stages * share)))
    for share in _FEWER_SEQUENCES:
        yield replace(limits, max_sequences=max(1, round(limits.max_sequences * share)))


def _for_the_whole_run(best: Answer, steady: Answer) -> Answer:
    """The quicker plan, with the bound and a note of the one with most steady throughput."""
    bound = steady.solution.bound
    saved = 1.0 - best.forecast.duration_s.p50 / steady.forecast.duration_s.p50
    note = (
        f"short run: chosen for its last row, {saved:.0%} sooner than the plan with most steady "
        f"throughput ({steady.solution.requests_per_s:.3g} requests/s)"
    )
    certificate = best.plan.certificate.model_copy(
        update={"bound": bound, "gap": abs(bound - best.solution.value) / best.solution.value}
    )
    plan = best.plan.model_copy(
        update={"certificate": certificate, "notes": (*best.plan.notes, note)}
    )
    return replace(best, plan=plan)


def build(question: Question, solution: Solution, *, version: int = 1) -> Answer:
    """The answer that a solution stands for."""
    pipelines = tuple(
        place_pipeline(solution.model, column)
        for column in solution.chosen
        for _ in range(column.copies)
    )
    whole = question.constraints.whole_nodes
    seating = seat_pipelines(solution, pipelines, whole_nodes=whole)
    expected = forecast(solution.model, pipelines, startup_s=question.startup_s)
    plan = _plan(question, solution, pipelines, seating, expected, version)
    return Answer(question, solution, pipelines, seating, expected, plan)


def slot_names(seating: Seating) -> list[str]:
    """`type-number` per node, numbered within its type."""
    seen: dict[str, int] = {}
    names: list[str] = []
    for offering in seating.nodes:
        number = seen.get(offering.instance.name, 0)
        seen[offering.instance.name] = number + 1
        names.append(f"{offering.instance.name}-{number}")
    return names


def _plan(
    question: Question,
    solution: Solution,
    pipelines: Sequence[PlacedPipeline],
    seating: Seating,
    expected: Forecast,
    version: int,
) -> Plan:
    names = slot_names(seating)
    kind = question.objective.kind
    return Plan(
        version=version,
        model=question.shape.name,
        num_layers=question.shape.num_layers,
        engine=question.engine,
        nodes=tuple(
            NodeSlot(
                slot=name,
                instance_type=offering.instance.name,
                zone=offering.zone,
                market=offering.market.value,
                usd_per_hour=offering.usd_per_hour,
                gpu=offering.instance.gpu.name,
                gpu_count=offering.instance.gpu_count,
            )
            for name, offering in zip(names, seating.nodes, strict=True)
        ),
        pipelines=tuple(
            _pipeline(f"pipeline-{p}", pipeline, seating, names, p)
            for p, pipeline in enumerate(pipelines)
        ),
        predicted=_prediction(question, solution, expected),
        certificate=Certificate(
            objective=f"{kind} ({_UNITS[kind]})",
            value=solution.value,
            bound=solution.bound,
            gap=solution.gap,
        ),
        notes=(*solution.notes, *_trust(question, seating)),
    )


def _trust(question: Question, seating: Seating) -> list[str]:
    """How far the figures of the plan's cards can be trusted, where that is not far."""
    cards = sorted({offering.instance.gpu.name for offering in seating.nodes})
    unknown = [card for card in cards if card not in question.constants.gpus]
    notes: list[str] = []
    if unknown:
        notes.append(
            f"never measured: {', '.join(unknown)}; planned as the average card of its data sheet"
        )
    if question.engine == ENGINE:
        others = [card for card in cards if card not in (*_MEASURED_ON_V1, *unknown)]
        if others:
            notes.append(
                f"measured on older engines only: {', '.join(others)}; vLLM V1 has published "
                f"figures here of {', '.join(_MEASURED_ON_V1)}, of one model of 8B"
            )
    return notes


def _pipeline(
    name: str, pipeline: PlacedPipeline, seating: Seating, names: list[str], index: int
) -> Pipeline:
    stages = tuple(
        Stage(
            slot=names[seat.node],
            first_gpu=seat.first_gpu,
            tp=stage.role.tp,
            first_layer=stage.first_layer,
            end_layer=stage.first_layer + stage.role.layers,
            memory_share=round(stage.memory_share, 4),
            limited_by=stage.limit,
        )
        for stage, seat in zip(pipeline.stages, seating.seats[index], strict=True)
    )
    return Pipeline(
        name=name,
        stages=stages,
        max_num_seqs=pipeline.concurrency,
        predicted_requests_per_s=pipeline.goodput_per_s,
        predicted_kv_tokens=int(min(stage.kv_tokens for stage in pipeline.stages)),
    )


def _prediction(question: Question, solution: Solution, expected: Forecast) -> Prediction:
    work, price = question.workload, solution.usd_per_hour
    rate = expected.requests_per_s.p50
    tokens = work.num_prompts * (work.mean_input + work.mean_output)
    cost = _scaled(expected.duration_s, price / 3600.0)
    return Prediction(
        requests_per_s=_range(expected.requests_per_s),
        input_tokens_per_s=rate * work.mean_input,
        output_tokens_per_s=rate * work.mean_output,
        usd_per_hour=price,
        usd_per_million_tokens=cost.p50 / tokens * 1e6,
        duration_s=_range(expected.duration_s),
        cost_usd=_range(cost),
    )


def _range(q: Quantiles) -> Range:
    return Range(p10=q.p10, p50=q.p50, p90=q.p90)


def _scaled(q: Quantiles, factor: float) -> Quantiles:
    return Quantiles(q.p10 * factor, q.p50 * factor, q.p90 * factor)
