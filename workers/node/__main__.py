"""`python -m workers.node`: a node's parts of the run's plan; without a plan, a worker for
each GPU, or for as many as its engine needs.

Takes the options of `python -m workers`, and some of its own. With `--instance` it is told all of
them by the EC2 instance that it runs on, and looks first whether the machine can do the work.
"""

import argparse
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial

from shunt.aws.imds import IMDS_URL, Imds
from shunt.errors import ShuntError
from shunt.fleet.worker_exit import DRAIN_LIMIT_S, WorkerExit
from shunt.job.job import Job
from shunt.plan.kept_plan import newest_version, read_plan
from shunt.plan.seat import Seat
from shunt.run.kept_job import current_job
from shunt.run.manifest import read_manifest
from shunt.store.config import StoreConfig, open_configured_store
from shunt.store.protocol import Store
from workers.ending import ending_told
from workers.interruption import leave_at_the_latest, watch_notices, watch_pipe
from workers.model_fetch import ModelFetch, bring_watched
from workers.node.fitness import Needed, gpus_here, needed_of_plan, require_fit, this_machine
from workers.node.instance import InstanceUnknown, read_instance
from workers.node.node import Node
from workers.node.part_process import NodeSetting, process_of
from workers.node.replicas import Replica, replicas_of
from workers.patience import driver_watch, once_reached

log = logging.getLogger("workers.node")


def main(argv: Sequence[str]) -> int:
    """Run the node until its work is done or it is told to go; returns the exit code."""
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
        stream=sys.stderr,
    )
    try:
        options, passed_on = _options(_told_by_instance(argv))
    except InstanceUnknown as error:
        log.error("%s", error)
        return WorkerExit.BUG
    worker = ["--store", options.store, "--run", options.run, *passed_on]
    try:
        config = StoreConfig.model_validate_json(options.store)
        store = open_configured_store(config, environment=os.environ)
    except ShuntError as error:
        log.error("%s: %s", type(error).__name__, error)
        return WorkerExit.BUG
    with ending_told(store, options.run, options.node) as ending:
        plan_version = once_reached(lambda: newest_version(store, options.run))
        manifest = once_reached(lambda: read_manifest(store, options.run))
        job = once_reached(partial(current_job, store, manifest))
        if options.check:
            _require_fit(store, options, job, plan_version)
        manifest = manifest.model_copy(update={"job": job})
        replicas = [] if plan_version else _replicas(manifest.job, options)
        if not plan_version and not replicas:
            _become_worker(worker, options)
        manifest = bring_watched(
            ModelFetch(store, config, options.run, options.node, os.environ, options.slot),
            manifest,
            watch_parent=options.watch_parent,
            imds_url=options.imds_url if options.watch_imds else None,
        )
        setting = NodeSetting(
            store=store,
            run_id=options.run,
            job=manifest.settled_job,
            own=Seat(slot=options.slot, node_id=options.node, address=options.address),
            worker_options=worker,
            environment=dict(os.environ),
            cores=len(os.sched_getaffinity(0)),
            monotonic=time.monotonic,
        )
        ending.code = _run(setting, options, replicas)
    log.info("node ends exit=%d (%s)", ending.code, ending.code.name.lower())
    return ending.code


def _told_by_instance(argv: Sequence[str]) -> list[str]:
    """The arguments with those that the instance's metadata hold in place of `--instance`; its
    region goes into our environment, where the store's client looks. Raises `InstanceUnknown`."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--instance", action="store_true")
    parser.add_argument("--imds-url", default=IMDS_URL)
    options, rest = parser.parse_known_args(argv)
    if not options.instance:
        return list(argv)
    instance = read_instance(Imds(options.imds_url))
    os.environ.update(instance.environment())
    return [*instance.arguments(), "--check", "--imds-url", options.imds_url, *rest]


def _require_fit(store: Store, options: argparse.Namespace, job: Job, plan_version: int) -> None:
    """Raises `NodeUnfit`."""
    imds = Imds(options.imds_url)
    with suppress(OSError):
        imds.get("meta-data/instance-id")  # for the date of its reply
    machine = this_machine(os.environ, options.instance_type, imds.clock_offset_s)
    if job.model.engine_kind == "fake":
        needed = Needed(num_gpus=0)
    elif plan_version:
        plan = once_reached(lambda: read_plan(store, options.run, plan_version))
        needed = needed_of_plan(plan, options.slot)
    else:
        needed = Needed(job.model.engine.num_gpus, whole_node=True)
    require_fit(machine, needed)


def _options(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog="python -m workers.node", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--store", required=True, help="store configuration as JSON")
    parser.add_argument("--run", required=True, help="run id")
    parser.add_argument("--node", required=True, help="name of this node")
    parser.add_argument("--slot", required=True, help="slot of the plan that it fills")
    parser.add_argument("--address", required=True, help="IPv4 by which other nodes reach it")
    parser.add_argument("--instance", action="store_true", help="all of it from EC2's metadata")
    parser.add_argument("--instance-type", default="", help="of EC2")
    parser.add_argument("--gpus", type=int, help="of this machine; unset: as the driver says")
    parser.add_argument("--check", action="store_true", help="look at the machine first")
    parser.add_argument("--watch-parent", action="store_true", help="drain when stdin closes")
    parser.add_argument("--watch-imds", action="store_true", help="drain at a notice of EC2")
    parser.add_argument("--imds-url", default=IMDS_URL, help="where EC2's metadata are served")
    return parser.parse_known_args(argv)


def _become_worker(worker: list[str], options: argparse.Namespace) -> None:
    """Of a run without a plan, on a node that one worker fills."""
    command = [sys.executable, "-m", "workers", *worker, "--node", options.node]
    command += ["--watch-parent"] if options.watch_parent else []
    command += ["--watch-imds", "--imds-url", options.imds_url] if options.watch_imds else []
    os.execv(sys.executable, command)


def _replicas(job: Job, options: argparse.Namespace) -> list[Replica]:
    """Of a node that has GPUs for several workers; otherwise none."""
    num_gpus = len(gpus_here() or ()) if options.gpus is None else options.gpus
    return replicas_of(num_gpus, job.model.engine.num_gpus, os.environ)


def _run(
    setting: NodeSetting, options: argparse.Namespace, replicas: Sequence[Replica]
) -> WorkerExit:
    node = Node(
        setting=setting,
        process_of=lambda part: process_of(part, setting),
        now=lambda: datetime.now(UTC),
        monotonic=time.monotonic,
        sleep=time.sleep,
        replicas=replicas,
        driver=driver_watch(setting.store, setting.run_id, setting.job)
        if options.watch_imds
        else None,
    )

    def told_to_leave(reason: str) -> None:
        if not node.leaving:
            leave_at_the_latest(DRAIN_LIMIT_S, WorkerExit.BUG)
        node.told_to_leave(reason)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _frame: told_to_leave(signal.Signals(number).name))
    if options.watch_parent:
        watch_pipe(sys.stdin.fileno(), told_to_leave)
    stopped = threading.Event()
    if options.watch_imds:
        watch_notices(Imds(options.imds_url), told_to_leave, stopped=stopped)
    try:
        return node.run()
    finally:
        stopped.set()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
