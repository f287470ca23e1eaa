"""One worker process, from its options to how it ended."""

import argparse
import asyncio
import logging
import os
import random
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from shunt.aws.imds import IMDS_URL, Imds
from shunt.checkpoint.gone import owner_name
from shunt.fleet.worker_exit import DRAIN_LIMIT_S, WorkerExit
from shunt.job.job import Job
from shunt.plan.plan import Pipeline
from shunt.plan.seat import Seat
from shunt.run.kept_job import current_job
from shunt.run.manifest import Manifest, read_manifest
from shunt.store.config import StoreConfig, open_configured_store
from shunt.store.protocol import Store
from workers.ending import Ending, ending_told
from workers.engine.config import engine_environment
from workers.interruption import (
    leave_at_the_latest,
    on_parent_gone,
    on_provider_notice,
    on_signals,
)
from workers.metrics import PORT_VARIABLE, serve_metrics
from workers.model_fetch import ModelFetch, bring_watched
from workers.node.partners import Partners
from workers.patience import driver_watch, once_reached
from workers.setup import sharing_device, threads_per_rank, with_pipeline, worker_of
from workers.warm.warm_process import WarmDoor, WarmProcess, WarmSource
from workers.worker import Worker

log = logging.getLogger("workers")


def options_of(argv: Sequence[str]) -> argparse.Namespace:
    """As `work` takes them."""
    parser = argparse.ArgumentParser(prog="python -m workers")
    parser.add_argument("--store", required=True, help="store configuration as JSON")
    parser.add_argument("--run", required=True, help="run id")
    parser.add_argument("--job", default="", help="this invocation's job, as JSON")
    parser.add_argument("--node", default=f"node-{uuid.uuid4().hex[:8]}", help="name of this node")
    parser.add_argument("--pipeline", default="", help="of a plan, as JSON: this worker heads it")
    parser.add_argument("--seat", default="", help="where the pipeline's nodes find us, as JSON")
    parser.add_argument(
        "--engines-per-device", type=int, default=0, help="workers that share this one's GPU"
    )
    parser.add_argument("--replicas", type=int, default=1, help="workers of each node")
    parser.add_argument("--cores", default="", help="cores to stay on, as 0,1")
    parser.add_argument("--watch-parent", action="store_true", help="drain when stdin closes")
    parser.add_argument("--watch-imds", action="store_true", help="drain at a notice of EC2")
    parser.add_argument("--imds-url", default=IMDS_URL, help="where EC2's metadata are served")
    parser.add_argument("--recheck", action="store_true", help="do not trust done markers")
    parser.add_argument("--warm", type=Path, help="socket of the node's warm process")
    parser.add_argument("--cold", action="store_true", help="spawn every process of the engine")
    parser.add_argument("--drain-limit-s", type=float, default=DRAIN_LIMIT_S)
    parser.add_argument("--log-level", default="info")
    return parser.parse_args(argv)


def _silent(_worker: Worker) -> None: ...


def work(options: argparse.Namespace, *, begins: Callable[[Worker], None] = _silent) -> Ending:
    """Run one worker until its run is done or it is told to go. `begins` is called from its event
    loop before it takes anything.
    """
    if options.cores:
        os.sched_setaffinity(0, [int(core) for core in options.cores.split(",")])
    store_config = StoreConfig.model_validate_json(options.store)
    store = open_configured_store(store_config, environment=os.environ)
    with ending_told(store, options.run, options.node) as ending:
        manifest = _manifest(store, options)
        os.environ.update(
            engine_environment(
                threads=threads_per_rank(manifest.job, len(os.sched_getaffinity(0))),
                kv_cache_gib=manifest.job.model.engine.cpu_kv_cache_gib,
            )
        )
        with _warm(manifest.job, options) as warm:
            bringing = ModelFetch(store, store_config, options.run, options.node, os.environ)
            manifest = bring_watched(
                bringing,
                manifest,
                watch_parent=options.watch_parent,
                imds_url=options.imds_url if options.watch_imds else None,
            )
            ending.code = asyncio.run(_run(store, manifest, options, warm, begins))
    log.info("worker ends exit=%d (%s)", ending.code, ending.code.name.lower())
    return ending


def _manifest(store: Store, options: argparse.Namespace) -> Manifest:
    """The run's manifest, with this invocation's job where it says one, and split as planned."""
    manifest = once_reached(lambda: read_manifest(store, options.run))
    if options.job:
        job = Job.model_validate_json(options.job)
    else:
        job = once_reached(partial(current_job, store, manifest))
    if options.engines_per_device:
        job = sharing_device(job, options.engines_per_device)
    if options.pipeline:
        job = with_pipeline(job, Pipeline.model_validate_json(options.pipeline))
    return manifest.model_copy(update={"job": job})


@contextmanager
def _warm(job: Job, options: argparse.Namespace) -> Iterator[WarmSource | None]:
    """The node's warm process, or one of our own, which imports vllm while we do."""
    if job.model.engine_kind != "vllm" or options.cold:
        yield None
    elif options.warm is not None:
        yield WarmDoor(options.warm)
    else:
        own = WarmProcess(dict(os.environ))
        own.start()
        try:
            yield own
        finally:
            own.close()


def _partners(store: Store, manifest: Manifest, options: argparse.Namespace) -> Partners | None:
    """The other nodes of this worker's pipeline; None where it has no other."""
    pipeline = manifest.job.model.engine.pipeline
    if pipeline is None or not options.seat or len(pipeline.slots) == 1:
        return None
    return Partners(
        store,
        manifest.run_id,
        options.node,
        pipeline,
        own=Seat.model_validate_json(options.seat),
        monotonic=time.monotonic,
    )


async def _run(
    store: Store,
    manifest: Manifest,
    options: argparse.Namespace,
    warm: WarmSource | None,
    begins: Callable[[Worker], None],
) -> WorkerExit:
    partners = _partners(store, manifest, options)
    metrics_port = os.environ.get(PORT_VARIABLE)
    worker = worker_of(
        store,
        manifest,
        node_id=options.node,
        owner=owner_name(options.node, uuid.uuid4().hex),
        trust_done=not options.recheck,
        now=lambda: datetime.now(UTC),
        monotonic=time.monotonic,
        rng=random.Random(),
        pid=os.getpid(),
        partners=partners,
        warm=warm,
        log_stats=metrics_port is not None,
        replicas=options.replicas,
    )
    if metrics_port is not None:
        serve_metrics(worker, int(metrics_port))
    if options.watch_imds:
        worker.driver = driver_watch(store, manifest.run_id, manifest.job)

    def told_to_leave(reason: str) -> None:
        if not worker.leave.is_set():
            leave_at_the_latest(options.drain_limit_s, WorkerExit.BUG)
        worker.told_to_leave(reason)

    on_signals(told_to_leave)
    if options.watch_parent:
        on_parent_gone(sys.stdin.fileno(), told_to_leave)
    stopped = threading.Event()
    if options.watch_imds:
        on_provider_notice(Imds(options.imds_url), told_to_leave, stopped=stopped)
    begins(worker)
    watching = None if partners is None else asyncio.create_task(_watch(partners, told_to_leave))
    try:
        return await worker.run()
    finally:
        stopped.set()
        if watching is not None:
            watching.cancel()


async def _watch(partners: Partners, told_to_leave: Callable[[str], None]) -> None:
    told_to_leave(await partners.until_one_is_lost())
