"""From a solution to the durable `Plan`, with its forecast."""

from collections.abc import Sequence
from dataclasses import dataclass

from placement.assembly import PlacedPipeline, Seating, place_pipeline, seat_pipelines
from placement.forecast import Forecast, Quantiles, forecast
from placement.objective import Kind
from placement.question import Question
from placement.solver import Solution, solve
from shunt.plan import Certificate, NodeSlot, Pipeline, Plan, Prediction, Range, Stage

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


def answer(question: Question, *, version: int = 1) -> Answer:
    """Solve and place. Raises `Infeasible`."""
    return build(question, solve(question), version=version)


def build(question: Question, solution: Solution, *, version: int = 1) -> Answer:
    """The answer that a solution stands for."""
    pipelines = tuple(
        place_pipeline(solution.model, column)
        for column in solution.chosen
        for _ in range(column.copies)
    )
    seating = seat_pipelines(solution, pipelines)
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
        notes=solution.notes,
    )


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
