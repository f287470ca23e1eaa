"""The nodes that a plan wants on EC2, and what to want instead when the market changes."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from placement.answer.plan_builder import answer
from placement.answer.replan import replan_answer
from placement.catalogue.offering import Market, Offering
from placement.errors import BadInput, Infeasible
from placement.question.planning_input import PlanningInput, make_question
from placement.question.question import Question
from shunt.aws.nodes.pool import Blocklist, Pool, SlotSpec, spec_of
from shunt.aws.nodes.replanning import Remaining
from shunt.errors import JobError
from shunt.job.job import Ec2, Job
from shunt.plan.kept_plan import keep_plan, newest_plan
from shunt.plan.plan import NodeSlot, Plan
from shunt.store.protocol import Store


@dataclass(slots=True)
class PlannedNodes:
    """A run's plan as it stands in the store; a new version when another one pays."""

    store: Store
    run_id: str
    question: Question
    zones: tuple[str, ...]
    plan: Plan

    @property
    def num_workers(self) -> int:
        return len(self.plan.pipelines)

    @property
    def whole_s(self) -> float:
        return self.plan.predicted.duration_s.p50

    def specs(self) -> dict[str, SlotSpec]:
        groups = together(self.plan)
        heads = {p.slots[0] for p in self.plan.pipelines if len(p.slots) > 1}
        return {
            node.slot: spec_of(
                node,
                self._zones_of(node),
                self._group(groups[node.slot]),
                heads=node.slot in heads,
            )
            for node in self.plan.nodes
        }

    def _group(self, group: str) -> str:
        return f"shunt-{self.run_id}-{group}" if group else ""

    def _zones_of(self, node: NodeSlot) -> tuple[str, ...]:
        """Where the planner may have such nodes, the cheapest first, and then all others: nodes
        that work together need a zone that all of them can be in."""
        offers = [
            o
            for o in self.question.offerings
            if (o.instance.name, o.market.value) == (node.instance_type, node.market)
        ]
        offers.sort(key=lambda offer: offer.usd_per_hour)
        zones = [zone for o in offers for zone in ((o.zone,) if o.zone else self.zones)]
        return tuple(dict.fromkeys([*zones, *self.zones]))

    def replanned(
        self, remaining: Remaining, *, closed: Blocklist, holding: Mapping[str, Pool]
    ) -> tuple[dict[str, SlotSpec], str] | None:
        """The slots of a better plan and why it is better; None where the plan stays.

        Pools that are closed have only the nodes that live there, which `holding` names by slot.
        """
        living = Counter(holding.values())
        offerings = [
            self._as_it_is(offering, closed, living) for offering in self.question.offerings
        ]
        question = _of_the_rest(self.question, remaining)
        question = replace(question, offerings=tuple(o for o in offerings if o.max_nodes > 0))
        try:
            found = replan_answer(question, self.plan, horizon_s=remaining.horizon_s).plan
        except Infeasible:
            return None  # the places that are empty are asked for again when their pools open
        if found.version == self.plan.version:
            return None
        self.plan = keep_plan(self.store, self.run_id, settled(found, self.plan, holding))
        return self.specs(), self.plan.notes[-1]

    def _as_it_is(self, offering: Offering, closed: Blocklist, living: Counter[Pool]) -> Offering:
        zones = (offering.zone,) if offering.zone else self.zones
        market = offering.market.value
        pools = tuple(Pool(offering.instance.name, zone, market) for zone in zones)
        if closed.open_pools(pools):
            return offering
        return replace(offering, max_nodes=sum(living[pool] for pool in pools))


def together(plan: Plan) -> dict[str, str]:
    """By slot, the name of the group of nodes that work together; empty for one that works alone.

    Nodes of one pipeline belong together, and so do the pipelines of one node.
    """
    group = {node.slot: node.slot for node in plan.nodes}
    for pipeline in plan.pipelines:
        names = {group[slot] for slot in pipeline.slots}
        for slot, name in group.items():
            if name in names:
                group[slot] = min(names)
    sizes = Counter(group.values())
    return {slot: name if sizes[name] > 1 else "" for slot, name in group.items()}


def planned_nodes(job: Job, settings: Ec2, store: Store, run_id: str) -> PlannedNodes:
    """The run's newest plan; the first one is made here. Raises `JobError`."""
    zones = tuple(settings.subnets)
    question = _question(job, settings)
    plan = newest_plan(store, run_id)
    if plan is None:
        try:
            plan = keep_plan(store, run_id, answer(question).plan)
        except Infeasible as error:
            raise JobError("\n".join([f"no plan: {error}", *error.advice])) from error
    return PlannedNodes(store, run_id, question, zones, plan)


def settled(plan: Plan, before: Plan, holding: Collection[str]) -> Plan:
    """The plan with the nodes that live left where they are, zone and slot name included.

    The planner counts nodes of a type; which of its zones they are in is the same to it, and not to
    us, who would have to start another one.
    """
    names: dict[str, NodeSlot] = {}
    kept = [node for node in before.nodes if node.slot in holding]
    gone = [node for node in before.nodes if node.slot not in holding]
    for match in (_same_pool, _same_type):
        _pair(plan.nodes, kept, names, match)
    _pair(plan.nodes, gone, names, _same_pool)
    taken = {node.slot for node in before.nodes}
    for node in plan.nodes:
        if node.slot not in names:
            fresh = _fresh(node.instance_type, taken)
            taken.add(fresh)
            names[node.slot] = node.model_copy(update={"slot": fresh})
    pipelines = [
        pipeline.model_copy(
            update={
                "stages": tuple(
                    stage.model_copy(update={"slot": names[stage.slot].slot})
                    for stage in pipeline.stages
                )
            }
        )
        for pipeline in plan.pipelines
    ]
    nodes = tuple(names[node.slot] for node in plan.nodes)
    return plan.model_copy(update={"nodes": nodes, "pipelines": tuple(pipelines)})


def _pair(
    wanted: Iterable[NodeSlot],
    there: list[NodeSlot],
    names: dict[str, NodeSlot],
    match: Callable[[NodeSlot, NodeSlot], bool],
) -> None:
    """Give wanted nodes, by their slot, one of those that are there; each is given once."""
    for node in wanted:
        if node.slot in names:
            continue
        for other in there:
            if match(node, other):
                names[node.slot] = other
                there.remove(other)
                break


def _same_type(one: NodeSlot, other: NodeSlot) -> bool:
    return (one.instance_type, one.market) == (other.instance_type, other.market)


def _same_pool(one: NodeSlot, other: NodeSlot) -> bool:
    return _same_type(one, other) and one.zone == other.zone


def _fresh(instance_type: str, taken: Collection[str]) -> str:
    """`type-number`: replanning reads the type from it."""
    number = 0
    while f"{instance_type}-{number}" in taken:
        number += 1
    return f"{instance_type}-{number}"


def _question(job: Job, settings: Ec2) -> Question:
    """What the job's `plan` asks, of nodes that a run can use."""
    try:
        given = PlanningInput.model_validate(job.plan)
        question = make_question(given, job.model.path, folder=Path.cwd())
    except ValidationError as error:
        raise JobError(f"plan: {error}") from error
    except BadInput as error:
        raise JobError(str(error)) from error
    engine = job.model.engine
    if (engine.tensor_parallel_size, engine.pipeline_parallel_size) != (1, 1) or engine.pipeline:
        raise JobError(
            "the plan says how the model is split: name fleet.ec2.instance_types, or remove "
            "tensor_parallel_size, pipeline_parallel_size and pipeline from model.engine"
        )
    usable = [o for o in question.offerings if _usable(o, settings)]
    if not usable:
        raise JobError("plan: no spot offering is left in a zone of fleet.ec2.subnets")
    return replace(question, offerings=tuple(usable))


def _of_the_rest(question: Question, remaining: Remaining) -> Question:
    """The same question about what is left, until the run's own deadline where it has one."""
    workload = question.workload
    num_prompts = max(1, round(workload.num_prompts * remaining.share))
    objective = question.objective
    if objective.deadline_s is not None and remaining.deadline_s is not None:
        objective = replace(objective, deadline_s=max(1.0, remaining.deadline_s))
    workload = replace(workload, num_prompts=num_prompts)
    return replace(question, workload=workload, objective=objective)


def _usable(offering: Offering, settings: Ec2) -> bool:
    """On-demand nodes are bought when the slack is gone, not by plan."""
    return offering.market is Market.SPOT and offering.zone in ("", *settings.subnets)
