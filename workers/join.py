"""`python -m workers.join RUN`: a worker that joins a run, on any machine that reaches its store.

For clusters, which start and end processes by themselves: Slurm, Kubernetes, Ray, SkyPilot.
Whoever joins takes shards by lease as every worker does, saves and leaves at SIGTERM, and ends when
nothing is left. `shunt worker RUN` is the same from the control environment.
"""

import argparse
import asyncio
import logging
import os
import re
import signal
import socket
import sys
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import ValidationError

from shunt.dataset.rendering import require_model
from shunt.errors import JobError, RunMissing, ShuntError
from shunt.fleet.worker_exit import DRAIN_LIMIT_S, WorkerExit
from shunt.job.job import Fleet, Job
from shunt.model.fetching import Interrupted
from shunt.run.cancellation import RUN_CANCELLED, is_cancelled
from shunt.run.event import Event, EventKind, record
from shunt.run.kept_job import current_job
from shunt.run.manifest import Manifest, find_manifest
from shunt.run.model_identity import ModelReplaced, require_same_model
from shunt.run.status import RunState, StatusReader
from shunt.store.config import StoreConfig, open_configured_store
from shunt.store.opening import directory_of
from shunt.store.patience import AWAY
from shunt.store.protocol import Store
from shunt.store.reaching import require_reachable
from workers.ending import Ending
from workers.node.fitness import NodeUnfit
from workers.process import options_of, work
from workers.worker import Worker

USAGE = 2
"""The command is wrong: another start says the same."""
_NAME_CHARACTERS = 40
_LOOK_S = 0.5

log = logging.getLogger("workers.join")


def main(argv: Sequence[str]) -> int:
    """Join a run; returns the exit code: 0 the run needs this worker no more (done, or cancelled),
    75 told to leave, 78 this machine cannot, 2 the command is wrong, 1 failed."""
    options = _options(argv)
    logging.basicConfig(
        level=options.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
        stream=sys.stderr,
    )
    for number in (signal.SIGTERM, signal.SIGINT):  # until the worker has handlers of its own
        signal.signal(number, _told_early)
    try:
        return _join(options)
    except Interrupted:
        log.info("left before it had begun: told to leave")
        return WorkerExit.DRAINED
    except (JobError, RunMissing) as error:
        log.error("%s", error)
        return USAGE
    except (NodeUnfit, ModelReplaced) as error:
        log.error("%s", error)
        return WorkerExit.UNFIT
    except ShuntError as error:
        log.error("%s", error)
        return WorkerExit.BUG


def _told_early(number: int, _frame: object) -> None:
    raise Interrupted("not needed", f"told to leave ({signal.Signals(number).name})")


def _join(options: argparse.Namespace) -> int:
    name, config = name_of(options.name), _store_of(options)
    store = open_configured_store(config, environment=os.environ)
    require_reachable(store)
    manifest = find_manifest(store, options.run)
    run_id = manifest.run_id
    if why := _nothing_to_do(store, manifest, recheck=options.recheck):
        log.info("run %s %s", run_id, why)
        return WorkerExit.DONE
    job = job_here(current_job(store, manifest), options.model)
    _require_model_here(manifest.model_copy(update={"job": job}))
    stay = _Stay(store, run_id, name)
    stay.begin(manifest)
    words = [
        *("--store", config.model_dump_json(exclude_none=True)),
        *("--run", run_id, "--node", name),
        *("--job", job.model_dump_json(by_alias=True, exclude_unset=True)),
        *("--drain-limit-s", str(options.drain_limit_s)),
        *(["--recheck"] if options.recheck else []),
        *(["--watch-parent"] if options.watch_parent else []),
    ]
    ending = work(options_of(words), begins=stay.works)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is leaving
    return stay.end(ending)


@dataclass(slots=True)
class _Stay:
    """What a worker says of its stay in a run, to its log and to the run's timeline."""

    store: Store
    run_id: str
    name: str
    _worker: Worker | None = None
    _talk: "asyncio.Task[None] | None" = None

    def begin(self, manifest: Manifest) -> None:
        log.info(
            "joined run %s as worker %s: %d rows in %d shards at %s",
            *(self.run_id, self.name, manifest.num_rows, len(manifest.shards), self.store.uri),
        )
        self._record(EventKind.WORKER_STARTED, f"joined from {socket.gethostname()}")

    def works(self, worker: Worker) -> None:
        """From its event loop: says which shards it holds, whenever these are others."""
        self._worker = worker
        self._talk = asyncio.get_running_loop().create_task(_say_held(worker))

    def end(self, ending: Ending) -> int:
        """Says why it leaves; the exit code of the process."""
        code, reason = ending.code, self._worker.leave_reason if self._worker else ""
        kind = EventKind.INTERRUPTED
        if code is WorkerExit.DONE:
            kind, why = EventKind.WORKER_ENDED, "nothing is left to do"
        elif code is not WorkerExit.DRAINED:
            why = f"it failed: {' '.join(ending.failure.split())}"
        elif reason == RUN_CANCELLED or (not reason and _is_cancelled(self.store, self.run_id)):
            kind, why, code = EventKind.WORKER_ENDED, RUN_CANCELLED, WorkerExit.DONE
        else:
            why = f"it was told to ({reason or 'before its model was here'})"
        saved = "; what it generated is saved" if ending.code is WorkerExit.DRAINED else ""
        log.info("left run %s because %s%s", self.run_id, why, saved)
        self._record(kind, why)
        return code

    def _record(self, kind: EventKind, detail: str) -> None:
        event = Event(at=datetime.now(UTC), kind=kind, node_id=self.name, detail=detail)
        with suppress(*AWAY):
            record(self.store, self.run_id, event)


async def _say_held(worker: Worker) -> None:
    said: list[str] = []
    while True:
        held = sorted(worker.desk.shards)
        if held != said:
            log.info("holds shards: %s", ", ".join(held) or "none")
        said = held
        await asyncio.sleep(_LOOK_S)


def _store_of(options: argparse.Namespace) -> StoreConfig:
    """Raises `JobError` where it is a directory that is not there."""
    try:
        config = StoreConfig(uri=options.store, endpoint_url=options.endpoint_url)
    except ValueError as error:
        raise JobError(f"--store {options.store}: {_sentence(error)}") from error
    directory = directory_of(config.uri)
    if directory is not None and not directory.is_dir():
        raise JobError(f"--store {config.uri}: {directory.absolute()} is no directory here")
    return config


def _sentence(error: ValueError) -> str:
    """The first fault that pydantic found, without its own words around."""
    if isinstance(error, ValidationError):
        return error.errors()[0]["msg"].removeprefix("Value error, ")
    return str(error)


def job_here(job: Job, model: str) -> Job:
    """The job as a worker that joins sees it, whatever the run's own fleet is: nobody shares its
    GPUs, and the model may lie elsewhere than where the run was prepared."""
    named = job.model.model_copy(update={"path": model}) if model else job.model
    return job.model_copy(update={"fleet": Fleet(kind="joined"), "model": named})


def _is_cancelled(store: Store, run_id: str) -> bool:
    try:
        return is_cancelled(store, run_id)
    except AWAY:
        return False


def _nothing_to_do(store: Store, manifest: Manifest, *, recheck: bool) -> str:
    """Why nobody need join; empty where there is work."""
    state = StatusReader(store, manifest.run_id).read().state
    if state is RunState.CANCELLED:
        return "is cancelled, so there is nothing to do: `shunt resume` lifts that"
    if state is RunState.COLLECTED:
        return "is finished, and its results are written"
    if state is RunState.GENERATED and not recheck:
        return "has no row left to generate: `shunt collect` writes its results"
    return ""


def _require_model_here(manifest: Manifest) -> None:
    """Raises `NodeUnfit` or `ModelReplaced`. A model that nodes fetch comes later."""
    model = manifest.job.model
    if manifest.model is not None:
        return
    require_same_model(manifest)
    if model.engine_kind == "fake":
        return
    try:
        require_model(model.path, model.revision)
    except JobError as error:
        raise NodeUnfit(
            f"this machine does not have the model of the run: {error}. Put it there, name its "
            "directory with --model, or give the job a hub id or s3:// prefix, which workers fetch"
        ) from error


def name_of(wanted: str | None) -> str:
    """Raises `JobError` for one that cannot be part of a key, or would name a part of a machine."""
    if wanted is None:
        return own_name()
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,80}", wanted):
        raise JobError(f"--name {wanted}: letters, digits, `-` and `_` only, 80 at most")
    return wanted


def own_name() -> str:
    """Of this worker, unlike any other's: a name of the machine is no more than a hint."""
    host = re.sub(r"[^A-Za-z0-9-]+", "-", socket.gethostname())[:_NAME_CHARACTERS].strip("-")
    return f"{host or 'node'}-{uuid.uuid4().hex[:6]}"


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="shunt worker",
        description="Join a run as one more worker, from any machine that reaches its store.",
    )
    parser.add_argument("run", metavar="RUN", help="run id; its unique beginning is enough")
    parser.add_argument(
        "--store",
        default=os.environ.get("SHUNT_STORE", "runs"),
        help="store of the run: s3://bucket/prefix, or a directory that all machines see",
    )
    parser.add_argument(
        "--endpoint-url",
        default=os.environ.get("SHUNT_ENDPOINT_URL"),
        help="S3 endpoint that is not AWS",
    )
    parser.add_argument(
        "--model", default="", help="directory of the run's model, if it lies elsewhere here"
    )
    parser.add_argument("--name", help="of this worker; unset: made of the machine's name")
    parser.add_argument(
        "--drain-limit-s",
        type=float,
        default=DRAIN_LIMIT_S,
        help="leave at the latest so long after SIGTERM: less than your cluster's grace",
    )
    parser.add_argument(
        "--recheck", action="store_true", help="look into shards that are marked done, too"
    )
    parser.add_argument(
        "--watch-parent", action="store_true", help="leave when stdin closes, as at SIGTERM"
    )
    parser.add_argument("--log-level", default="info")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
