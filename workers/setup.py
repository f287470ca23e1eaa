"""From a manifest to a worker: what the process edge reads, resolved into the worker's parts."""

import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime
from functools import partial
from multiprocessing.context import BaseContext

from shunt import keys
from shunt.checkpoint.lease import Lease, LeaseObserver
from shunt.dataset.rendering import renderer_of
from shunt.dataset.shard import read_shard
from shunt.job.job import Job
from shunt.plan.plan import Pipeline
from shunt.retry import RetryPolicy
from shunt.run.event import Event, EventKind, record
from shunt.run.manifest import Manifest
from shunt.store.opening import with_retry
from shunt.store.patience import AWAY
from shunt.store.protocol import Store
from workers.assembly import assemble
from workers.engine.config import EngineConfig
from workers.engine.fake import FakeEngine
from workers.engine.protocol import Engine
from workers.node.partners import Partners
from workers.settings import WorkerSettings
from workers.shards.cadence import Cadence
from workers.shards.opening import OpenedShard, hold_shard
from workers.shards.supply import ShardSupply
from workers.warm.warm_process import WarmSource
from workers.worker import Worker

log = logging.getLogger(__name__)

DEVICE_SHARE = 0.9
"""Of a device's memory, for all engines of a local fleet together: vLLM's own default for one."""


def worker_of(
    store: Store,
    manifest: Manifest,
    *,
    node_id: str,
    owner: str,
    trust_done: bool,
    now: Callable[[], datetime],
    monotonic: Callable[[], float],
    rng: random.Random,
    pid: int,
    partners: Partners | None = None,
    warm: WarmSource | None = None,
    log_stats: bool = False,
    replicas: int = 1,
) -> Worker:
    """The worker of one node for one run. `owner` is unique to this process. `partners`: where its
    engine has stages on other nodes. `warm`: what its engine cores are forked from. `log_stats`:
    whether vLLM registers metrics of its own in this process. `replicas`: workers of each node."""
    job = manifest.settled_job
    settings = WorkerSettings(
        run_id=manifest.run_id,
        node_id=node_id,
        checkpoint_interval_s=job.checkpoint_interval_s,
        checkpoint_tokens=job.checkpoint_tokens,
        lease_term_s=job.lease_term_s,
        num_workers=_num_workers(job, replicas),
        max_deaths=job.errors.max_engine_deaths_per_prompt,
    )

    def tell(kind: EventKind, detail: str) -> None:
        event = Event(at=now(), kind=kind, node_id=node_id, detail=detail)
        try:
            record(store, manifest.run_id, event)
        except AWAY as error:
            log.warning("event not stored: %s", error)

    quick = with_retry(store, renewal_retry(settings.renew_interval_s))
    observer = LeaseObserver(store, manifest.run_id, job.lease_term_s, monotonic, quick)
    shard_ids = [shard.shard_id for shard in manifest.shards]
    worker = assemble(
        settings,
        store,
        supply=ShardSupply(observer, shard_ids, owner, rng, trust_done),
        open_shard=_shard_opener(job, manifest.created_at),
        start_engine=engine_starter(
            job, tell=tell, partners=partners, warm=warm, log_stats=log_stats
        ),
        now=now,
        monotonic=monotonic,
        pid=pid,
    )
    if partners is not None:
        worker.carriers_live = partners.all_live
    return worker


def _num_workers(job: Job, replicas: int) -> int | None:
    """Of the fleet as wanted; None where a plan says it, or whoever joins."""
    if job.plan is not None or job.fleet.kind == "joined":
        return None
    return job.fleet.workers * replicas


def renewal_retry(interval_s: float) -> RetryPolicy:
    """A renewal that fails is tried again at the next tick, so it need not outlive this one.
    Retries that pile up while a store throttles would make leases of living owners lapse."""
    return RetryPolicy(
        attempts=4, total_s=interval_s / 2, first_wait_s=0.1, max_wait_s=interval_s / 8
    )


def with_pipeline(job: Job, pipeline: Pipeline) -> Job:
    """The job with its model split as the plan says."""
    engine = job.model.engine.model_copy(update={"pipeline": pipeline})
    model = job.model.model_copy(update={"engine": engine})
    return job.model_copy(update={"model": model})


def sharing_device(job: Job, num_engines: int) -> Job:
    """The job with the share of a GPU's memory that each of so many engines on it may take, where
    the job names none."""
    engine = job.model.engine
    if engine.gpu_memory_utilization is not None:
        return job
    engine = engine.model_copy(update={"gpu_memory_utilization": DEVICE_SHARE / num_engines})
    model = job.model.model_copy(update={"engine": engine})
    return job.model_copy(update={"model": model})


def engine_config(job: Job) -> EngineConfig:
    """What the job says of the model and its engine, as the engine takes it."""
    model, engine = job.model, job.model.engine
    return EngineConfig(
        model_path=model.path,
        dtype=model.dtype,
        max_model_len=model.max_model_len_tokens,
        max_num_seqs=engine.pipeline.max_num_seqs if engine.pipeline else engine.max_num_seqs,
        max_num_batched_tokens=engine.max_num_batched_tokens,
        enforce_eager=engine.enforce_eager,
        enable_prefix_caching=engine.enable_prefix_caching,
        tensor_parallel_size=engine.tensor_parallel_size,
        pipeline_parallel_size=engine.pipeline_parallel_size,
        gpu_memory_utilization=engine.gpu_memory_utilization
        or DEVICE_SHARE / _engines_a_device(job),
        adapters=model.adapters,
        tool_call_parser=model.tool_call_parser,
        extra=engine.extra,
    )


def _engines_a_device(job: Job) -> int:
    """Local workers share the machine; others have GPUs of their own."""
    return job.fleet.workers if job.fleet.kind == "local" else 1


def _shard_opener(job: Job, clock: datetime) -> Callable[[Lease, Cadence], OpenedShard]:
    renderer = renderer_of(job, clock=clock)

    def open_shard(lease: Lease, cadence: Cadence) -> OpenedShard:
        data = lease.store.get(keys.shard_prompts(lease.run_id, lease.shard_id))
        prompts = read_shard(data, defaults=job.sampling)
        return hold_shard(
            lease,
            prompts,
            render=renderer.render,
            cadence=cadence,
            context_tokens=renderer.max_model_len,
        )

    return open_shard


def threads_per_rank(job: Job, num_cores: int) -> int:
    """OpenMP threads of each of the engine's processes, on a worker's cores."""
    pipeline = job.model.engine.pipeline
    num_ranks = sum(stage.tp for stage in pipeline.stages) if pipeline else 1
    return max(1, num_cores // num_ranks)


def engine_starter(
    job: Job,
    *,
    tell: Callable[[EventKind, str], None] = lambda _kind, _detail: None,
    partners: Partners | None = None,
    warm: WarmSource | None = None,
    log_stats: bool = False,
) -> Callable[[], Awaitable[Engine]]:
    """What starts the engine that the job asks for. `tell` is told what is unlike its plan, and of
    what was not started warm though there is a warm process."""
    if job.model.engine_kind == "fake":
        return lambda: _fake_engine(job, partners)
    config = replace(engine_config(job), log_stats=log_stats)

    def processes() -> BaseContext | None:
        return None if warm is None else warm.context(partial(tell, EventKind.COLD_START))

    # Both import vllm and torch: ten seconds and a gigabyte that the fake engine does without.
    if (pipeline := job.model.engine.pipeline) is not None:
        from workers.pipeline.engine import PipelineStarter

        unlike = partial(tell, EventKind.UNLIKE_PLAN)
        return PipelineStarter(config, pipeline, unlike, partners, processes).start
    from workers.engine.vllm_engine import VllmEngine

    return lambda: VllmEngine.start(config, processes())


async def _fake_engine(job: Job, partners: Partners | None) -> Engine:
    if partners is not None:
        await partners.gather()
        await partners.announce(0)
    return FakeEngine(
        max_concurrency=job.model.engine.max_num_seqs, tokens_per_s=job.model.fake_tokens_per_s
    )
