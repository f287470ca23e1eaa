"""The plan record refuses what no fleet could run."""

import pytest
from pydantic import ValidationError

from shunt.plan.plan import Certificate, NodeSlot, Pipeline, Plan, Prediction, Range, Stage

RANGE = Range(p10=1.0, p50=2.0, p90=3.0)


def plan(*stages: Stage, num_layers: int = 8) -> Plan:
    """One pipeline on two nodes of two GPUs."""
    nodes = tuple(
        NodeSlot(
            slot=f"g-{i}", instance_type="g", zone="a", market="spot", usd_per_hour=1, gpu_count=2
        )
        for i in range(2)
    )
    return Plan(
        model="tiny",
        num_layers=num_layers,
        engine="vllm",
        nodes=nodes,
        pipelines=(
            Pipeline(name="p", stages=stages, max_num_seqs=4, predicted_requests_per_s=1.0),
        ),
        predicted=Prediction(
            requests_per_s=RANGE,
            input_tokens_per_s=1,
            output_tokens_per_s=1,
            usd_per_hour=2,
            usd_per_million_tokens=1,
            duration_s=RANGE,
            cost_usd=RANGE,
        ),
        certificate=Certificate(objective="throughput", value=1, bound=1, gap=0),
    )


FIRST = Stage(slot="g-0", tp=2, first_layer=0, end_layer=5)
SECOND = Stage(slot="g-1", tp=1, first_layer=5, end_layer=8)


def test_a_plan_survives_its_json() -> None:
    made = plan(FIRST, SECOND)
    assert Plan.model_validate_json(made.model_dump_json()) == made
    assert not made.pipelines[0].uniform_tp
    assert made.node("g-1").slot == "g-1"


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ((FIRST, Stage(slot="g-1", tp=1, first_layer=6, end_layer=8)), "layers must follow"),
        ((FIRST,), "ends at layer 5 of 8"),
        ((FIRST, Stage(slot="g-0", tp=1, first_layer=5, end_layer=8)), "serves two stages"),
        ((FIRST, Stage(slot="g-9", tp=1, first_layer=5, end_layer=8)), "no node has slot g-9"),
        ((FIRST, Stage(slot="g-1", tp=4, first_layer=5, end_layer=8)), "does not exist"),
    ],
)
def test_impossible_plans_are_refused(stages: tuple[Stage, ...], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        plan(*stages)


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(ValidationError, match="colour"):
        Plan.model_validate({**plan(FIRST, SECOND).model_dump(), "colour": "red"})
