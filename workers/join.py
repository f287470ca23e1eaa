"""`python -m workers.join RUN`: a worker that joins a run, on any machine that reaches its store.

For clusters, which start and end processes by themselves: Slurm, Kubernetes, Ray, SkyPilot.
Whoever joins takes shards by lease as every worker does, saves and leaves at SIGTERM, and ends when
nothing is left. `shunt worker RUN` is the same from the control environment.
"""

import argparse
import logging
import os
import re
import socket
import sys
import uuid
from collections.abc import Sequence

from shunt.dataset.rendering import require_model
from shunt.errors import JobError, RunMissing, ShuntError
from shunt.fleet.worker_exit import DRAIN_LIMIT_S, WorkerExit
from shunt.run.manifest import Manifest, find_manifest
from shunt.run.model_identity import ModelReplaced, require_same_model
from shunt.run.status import RunState, StatusReader
from shunt.store.config import StoreConfig, open_configured_store
from shunt.store.protocol import Store
from shunt.store.reaching import require_reachable
from workers.__main__ import main as work
from workers.node.fitness import NodeUnfit

USAGE = 2
"""The command is wrong: another start says the same."""
_NAME_CHARACTERS = 40

log = logging.getLogger("workers.join")


def main(argv: Sequence[str]) -> int:
    """Join a run; returns the exit code: 0 nothing is left to do, 75 told to leave, 78 this machine
    cannot, 2 the command is wrong, 1 failed."""
    options = _options(argv)
    logging.basicConfig(
        level=options.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
        stream=sys.stderr,
    )
    try:
        return _join(options)
    except (JobError, RunMissing) as error:
        log.error("%s", error)
        return USAGE
    except (NodeUnfit, ModelReplaced) as error:
        log.error("%s", error)
        return WorkerExit.UNFIT
    except ShuntError as error:
        log.error("%s", error)
        return WorkerExit.BUG


def _join(options: argparse.Namespace) -> int:
    config = StoreConfig(uri=options.store, endpoint_url=options.endpoint_url)
    store = open_configured_store(config, environment=os.environ)
    require_reachable(store)
    manifest = find_manifest(store, options.run)
    run_id = manifest.run_id
    if why := _nothing_to_do(store, manifest, recheck=options.recheck):
        log.info("run %s %s", run_id, why)
        return WorkerExit.DONE
    _require_model_here(manifest)
    name = options.name or own_name()
    log.info(
        "joined run %s as %s: %d rows in %d shards at %s",
        *(run_id, name, manifest.num_rows, len(manifest.shards), store.uri),
    )
    code = work(
        [
            *("--store", config.model_dump_json(exclude_none=True)),
            *("--run", run_id, "--node", name),
            *("--drain-limit-s", str(options.drain_limit_s)),
            *("--log-level", options.log_level),
            *(["--recheck"] if options.recheck else []),
        ]
    )
    log.info("left run %s: %s", run_id, _said(code))
    return code


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
    if model.engine_kind == "fake" or manifest.model is not None:
        return
    try:
        require_model(model.path, model.revision)
    except JobError as error:
        raise NodeUnfit(
            f"this machine does not have the model of the run: {error}. Put it there, or name a "
            "hub id or s3:// prefix as model.path, which workers fetch"
        ) from error
    require_same_model(manifest)


def _said(code: int) -> str:
    if code == WorkerExit.DONE:
        return "nothing is left to do"
    if code == WorkerExit.DRAINED:
        return "told to; what was generated is saved, and the shards are free for others"
    return f"failed (exit {code}); what was saved stays"


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
    parser.add_argument("--log-level", default="info")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
