"""How a process of a node ends: what it was that ended it, told in the store before it is gone."""

import logging
import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from shunt.errors import ShuntError
from shunt.fleet.worker_exit import WorkerExit
from shunt.model.errors import ModelError, ModelUnavailable
from shunt.model.fetching import Interrupted
from shunt.run.node_status import write_failure
from shunt.store.errors import StoreError
from shunt.store.protocol import Store
from workers.node.fitness import NodeUnfit

log = logging.getLogger("workers")


@dataclass(slots=True)
class Ending:
    """The exit code of the process."""

    code: WorkerExit = WorkerExit.BUG
    failure: str = ""
    """Why it could not do its work."""


@contextmanager
def ending_told(store: Store, run_id: str, node_id: str) -> Generator[Ending]:
    """At a process edge: an error ends the block, is logged, and is told in the node's status, so
    that `shunt status` says why the node failed without a look into its journal. One that was told
    to leave before it had its model has not failed."""
    ending = Ending()
    try:
        yield ending
    except Interrupted as told:
        log.info("%s", told)
        ending.code = WorkerExit.DRAINED
        _tell(store, run_id, node_id, ending.code, "")
    except ShuntError as error:
        log.error("%s: %s", type(error).__name__, error)
        ending.code, ending.failure = _code_of(error), str(error)
        _tell(store, run_id, node_id, ending.code, ending.failure)
    except Exception as error:  # the process edge: whatever it is, it is told
        log.exception("the worker failed")
        ending.code, ending.failure = WorkerExit.BUG, f"{type(error).__name__}: {error}"
        _tell(store, run_id, node_id, ending.code, ending.failure)


def _code_of(error: ShuntError) -> WorkerExit:
    """Whether another start on the same machine may do better."""
    lasting = isinstance(error, NodeUnfit | ModelError) and not isinstance(error, ModelUnavailable)
    return WorkerExit.UNFIT if lasting else WorkerExit.BUG


def _tell(store: Store, run_id: str, node_id: str, code: WorkerExit, failure: str) -> None:
    try:
        write_failure(
            store,
            run_id,
            node_id,
            pid=os.getpid(),
            at=datetime.now(UTC),
            exit_code=code,
            failure=" ".join(failure.split())[:1000],
        )
    except StoreError as error:
        log.error("the failure was not stored: %s", error)
