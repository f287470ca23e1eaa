"""A run with a story, as its objects in a store: four workers of which twelve are lost.

Every place is filled three times more: each worker loads for 20 s after 10 s of booting, works for
90 s, and is lost. Then one works until the end. Tokens come at 100 a second from each.
"""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from shunt import keys
from shunt.checkpoint.done import ShardDone, mark_done
from shunt.job.job import Job
from shunt.plan.kept_plan import keep_plan
from shunt.plan.plan import Certificate, NodeSlot, Pipeline, Plan, Prediction, Range, Stage
from shunt.results.summary import SUMMARY_NAME, ResultSummary
from shunt.run.event import Event, EventKind, record
from shunt.run.manifest import Manifest, ShardEntry, write_manifest
from shunt.run.node_course import CourseKeeper, NodeCourse, NodeState, Sample
from shunt.run.node_status import NodeStatus, write_status
from shunt.run.spend import PoolSpend, Spend, write_spend
from shunt.testing.memory_store import MemoryStore

RUN = "story-0123456789ab"
START = datetime(2026, 3, 1, 22, 0, tzinfo=UTC)
BOOT_S, LOAD_S, LIFE_S, GAP_S = 10.0, 20.0, 120.0, 5.0
NUM_SLOTS, NUM_LOSSES = 4, 3
END_S = 700.0
RATE = 100
UNSAVED = 150
"""Tokens that each lost worker had not saved: every second one was told in time, and lost none."""


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def story_store() -> MemoryStore:
    """A collected run that cost money and had a plan."""
    store = MemoryStore()
    write_manifest(store, _manifest())
    for slot in range(NUM_SLOTS):
        _fill(store, slot)
    record(store, RUN, Event(at=at(END_S), kind=EventKind.COLLECTED))
    for shard in range(4):
        done = ShardDone(shard_id=f"{shard:06d}", epoch=1, num_rows=100, num_error_rows=0,
                         num_output_tokens=50_000, num_segments=9)  # fmt: skip
        mark_done(store, RUN, done)
    write_spend(store, RUN, _spend())
    keep_plan(store, RUN, _plan())
    store.put(keys.result(RUN, SUMMARY_NAME), _summary().model_dump_json().encode())
    return store


def _fill(store: MemoryStore, slot: int) -> None:
    begins_s = 2.0 * slot
    for number in range(NUM_LOSSES + 1):
        last = number == NUM_LOSSES
        ends_s = END_S - 20.0 - slot if last else begins_s + LIFE_S + 3.0 * slot
        _live(store, f"w-{slot}", f"i-{slot}{number}", begins_s, ends_s, lost=not last)
        begins_s = ends_s + GAP_S


def _live(
    store: MemoryStore, slot: str, node: str, begins_s: float, ends_s: float, *, lost: bool
) -> None:
    told = (int(node[-1]) + int(slot[-1])) % 2 == 0
    started = Event(at=at(begins_s), kind=EventKind.WORKER_STARTED, node_id=node, slot=slot)
    record(store, RUN, started)
    kind, why = EventKind.WORKER_ENDED, "done: no shard is left"
    if lost:
        why = "interruption notice of the provider" if told else "not heard of any more"
        kind = EventKind.INTERRUPTED
    record(store, RUN, Event(at=at(ends_s), kind=kind, node_id=node, slot=slot, detail=why))
    if lost:
        taken = Event(at=at(ends_s + 1), kind=EventKind.SHARD_RESUMED, node_id=f"{node}-heir",
                      shard_id="000000", num_tokens=400)  # fmt: skip
        record(store, RUN, taken)
    crashed = lost and not told
    alive_s = ends_s - begins_s - BOOT_S
    tokens = int(RATE * (alive_s - LOAD_S))
    unsaved = UNSAVED if crashed else 0
    status = NodeStatus(
        node_id=node,
        pid=1,
        state=NodeState.RUNNING if crashed else NodeState.ENDED,
        started_at=at(begins_s + BOOT_S),
        updated_at=at(ends_s - 1),
        exit_code=None if crashed else 75 if lost else 0,
        rows_finished=25,
        output_tokens=tokens - unsaved,
        unsaved_tokens=unsaved,
        resumed_tokens=400 if int(node[-1]) else 0,
        prompt_tokens=2_000,
        cached_tokens=500,
        course=course(alive_s, tokens, ended=not crashed),
    )
    write_status(store, RUN, status)


def course(alive_s: float, tokens: int, *, ended: bool) -> NodeCourse:
    """Loads, then generates evenly; 25 rows."""
    keeper, made = CourseKeeper(), NodeCourse()
    for at_s in range(0, int(alive_s) + 1, 2):
        share = max(0.0, at_s - LOAD_S) / (alive_s - LOAD_S)
        state = NodeState.STARTING if at_s < LOAD_S else NodeState.RUNNING
        made = keeper.saw(state, Sample(at_s, int(share * tokens), int(25 * share), 8))
    last = NodeState.ENDED if ended else NodeState.RUNNING
    return keeper.saw(last, Sample(alive_s, tokens, 25, 0)) if tokens else made


def _manifest() -> Manifest:
    job = {"name": "story", "model": {"path": "org/model"}, "input": {"path": "in.jsonl"}}
    entries = tuple(
        ShardEntry(shard_id=f"{n:06d}", first_index=100 * n, num_prompts=100, num_error_rows=0)
        for n in range(4)
    )
    return Manifest(
        run_id=RUN,
        created_at=at(-30),
        job=Job.model_validate(job),
        input_format="jsonl",
        files=(),
        shards=entries,
    )


def _spend() -> Spend:
    pools = (
        PoolSpend(instance_type="g6.12xlarge", zone="us-east-1a", market="spot", num_nodes=12,
                  node_hours=0.6, usd=Decimal("1.10"), on_demand_usd=Decimal("2.76")),
        PoolSpend(instance_type="g6e.12xlarge", zone="us-east-1b", market="on-demand", num_nodes=4,
                  node_hours=0.1, usd=Decimal("1.05"), on_demand_usd=Decimal("1.05")),
    )  # fmt: skip
    return Spend(at=at(END_S), usd=Decimal("2.15"), usd_per_hour=Decimal(0), num_nodes=0,
                 num_launched=16, max_cost_usd=5.0, pools=pools)  # fmt: skip


def _plan() -> Plan:
    rates = Range(p10=0.4, p50=0.5, p90=0.6)
    stage = Stage(slot="w-0", tp=4, first_layer=0, end_layer=2)
    pipeline = Pipeline(name="p", max_num_seqs=8, predicted_requests_per_s=0.5, stages=(stage,))
    node = NodeSlot(slot="w-0", instance_type="g6.12xlarge", zone="", market="spot",
                    usd_per_hour=1.8, gpu="L4", gpu_count=4)  # fmt: skip
    predicted = Prediction(
        requests_per_s=rates, input_tokens_per_s=1.0, output_tokens_per_s=1.0, usd_per_hour=7.2,
        usd_per_million_tokens=1.0, duration_s=Range(p10=600, p50=660, p90=760),
        cost_usd=Range(p10=1.0, p50=1.3, p90=1.7),
    )  # fmt: skip
    return Plan(
        model="org/model",
        num_layers=2,
        engine="vllm",
        nodes=(node,),
        pipelines=(pipeline,),
        predicted=predicted,
        certificate=Certificate(objective="cost", value=1, bound=1, gap=0),
    )


def _summary() -> ResultSummary:
    return ResultSummary(
        run_id=RUN, collected_at=at(END_S), num_rows=400, num_ok=397, num_errors=3,
        errors={"context_length": 2, "engine_killed": 1}, num_prompt_tokens=32_000,
        num_output_tokens=200_000, num_resumed_rows=60, num_restarted_rows=1,
        directory="s3://bucket/results", files=(), cuts={},
    )  # fmt: skip
