"""Nodes by plan: the first plan, what stays when the market changes, and what is refused."""

from typing import Any

import pytest

from flows.drive.ec2_plan import PlannedNodes, planned_nodes
from shunt.aws.nodes.held_fleet import Remaining
from shunt.aws.nodes.pool import Blocklist, Pool
from shunt.errors import JobError
from shunt.job.job import Job
from shunt.job.job_file import check_job
from shunt.plan.kept_plan import newest_plan
from shunt.testing.memory_store import MemoryStore

RUN = "planned-0001"
TYPE = "g6.xlarge"
ZONES = {"us-east-1a": 0.30, "us-east-1b": 0.35, "us-east-1c": 0.40}
LONG = Remaining(share=0.9, horizon_s=20_000.0, deadline_s=None)


CHEAPEST_IN_TIME = {"kind": "cost", "deadline_hours": 6}
"""One node would take eight hours."""


def job_of(objective: dict[str, Any] | None = None, **ec2: Any) -> Job:
    offerings = [
        {"instance_type": TYPE, "zone": zone, "usd_per_hour": usd, "max_nodes": 2}
        for zone, usd in ZONES.items()
    ]
    offerings.append({"instance_type": TYPE, "market": "on-demand", "max_nodes": 2})
    workload = {"num_prompts": 100_000, "input_tokens": 500, "output_tokens": 200}
    tree: dict[str, Any] = {
        "name": "planned",
        "model": {"path": "Qwen2.5-7B-Instruct", "engine_kind": "fake"},
        "input": {"path": "none"},
        "fleet": {
            "kind": "ec2",
            "ec2": {"region": "us-east-1", "subnets": dict.fromkeys(ZONES, "s"), **ec2},
        },
        "plan": {
            "workload": workload,
            "offerings": offerings,
            "constraints": {"max_nodes": 2},
            "objective": objective or {},
        },
    }
    return check_job(tree, source="test")


def planned(job: Job, store: MemoryStore) -> PlannedNodes:
    assert job.fleet.ec2 is not None
    return planned_nodes(job, job.fleet.ec2, store, RUN)


def zones_of(nodes: PlannedNodes) -> dict[str, tuple[str, ...]]:
    return {slot: tuple(p.zone for p in spec.pools) for slot, spec in nodes.specs().items()}


def closed(*zones: str) -> Blocklist:
    found = Blocklist(lambda: 0.0)
    for zone in zones:
        found.block(Pool(TYPE, zone, "spot"))
    return found


def test_the_plan_buys_the_cheapest_and_a_new_controller_finds_it() -> None:
    store = MemoryStore()
    first = planned(job_of(CHEAPEST_IN_TIME), store)
    assert zones_of(first) == {f"{TYPE}-{n}": ("us-east-1a",) for n in range(2)}
    assert newest_plan(store, RUN) == first.plan
    assert planned(job_of(CHEAPEST_IN_TIME), store).plan == first.plan


@pytest.mark.parametrize(
    ("objective", "why"),
    [(CHEAPEST_IN_TIME, "would miss the deadline"), ({"kind": "throughput"}, "accepted")],
)
def test_a_lost_place_moves_and_the_node_that_lives_stays_in_its_slot(
    objective: dict[str, Any], why: str
) -> None:
    store = MemoryStore()
    nodes = planned(job_of(objective), store)
    stays = f"{TYPE}-1"
    (zone,) = zones_of(nodes)[stays]
    living = {stays: Pool(TYPE, zone, "spot")}
    found = nodes.replanned(LONG, closed=closed(zone), holding=living)
    assert found is not None
    assert why in found[1]
    after = zones_of(nodes)
    assert set(after) == {stays, f"{TYPE}-2"}
    assert after[stays] == (zone,)
    assert after[f"{TYPE}-2"] != (zone,)
    newest = newest_plan(store, RUN)
    assert newest is not None
    assert newest.version == 2


def test_near_the_end_a_switch_does_not_pay() -> None:
    nodes = planned(job_of(), MemoryStore())
    stays = f"{TYPE}-0"
    (zone,) = zones_of(nodes)[stays]
    living = {stays: Pool(TYPE, zone, "spot")}
    soon = Remaining(share=0.01, horizon_s=60.0, deadline_s=None)
    found = nodes.replanned(soon, closed=closed(zone), holding=living)
    assert found is not None
    assert "refused" in found[1]
    assert zones_of(nodes) == {stays: (zone,)}


def test_little_work_left_needs_no_other_node_in_place_of_a_lost_one() -> None:
    nodes = planned(job_of(CHEAPEST_IN_TIME), MemoryStore())
    living = {f"{TYPE}-0": Pool(TYPE, "us-east-1a", "spot")}
    little = Remaining(share=0.2, horizon_s=7000.0, deadline_s=None)
    assert nodes.replanned(little, closed=closed("us-east-1a"), holding=living) is not None
    assert zones_of(nodes) == {f"{TYPE}-0": ("us-east-1a",)}


def test_where_no_plan_is_possible_the_old_one_stays() -> None:
    nodes = planned(job_of(), MemoryStore())
    before = nodes.plan
    assert nodes.replanned(LONG, closed=closed(*ZONES), holding={}) is None
    assert nodes.plan == before


def test_on_demand_is_not_planned_with_it_comes_when_the_slack_is_gone() -> None:
    """The planner would take it at once, as such nodes are not taken away."""
    nodes = planned(job_of(on_demand="at-deadline"), MemoryStore())
    assert {node.market for node in nodes.plan.nodes} == {"spot"}


def test_a_zone_without_a_subnet_is_not_planned_with() -> None:
    nodes = planned(job_of(subnets={"us-east-1c": "s"}), MemoryStore())
    assert set(zones_of(nodes).values()) == {("us-east-1c",)}


def test_nodes_that_a_run_cannot_use_are_refused_with_the_reason() -> None:
    job = job_of(subnets={"us-east-1f": "s"})
    with pytest.raises(JobError, match="spot offering is left"):
        planned(job, MemoryStore())


def test_without_types_and_without_a_plan_a_job_is_refused() -> None:
    tree = job_of().model_dump(mode="json", exclude={"plan"}, exclude_unset=True)
    with pytest.raises(JobError, match="instance_types is empty"):
        check_job(tree, source="test")
