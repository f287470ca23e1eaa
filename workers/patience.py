"""Waiting: for a store that is away while a worker starts, and for a driver that is silent."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from shunt.job.job import Job
from shunt.run.driver import DriverWatch
from shunt.store.errors import StoreDenied, StoreUnavailable
from shunt.store.protocol import Store

START_PATIENCE_S = 600.0
"""How long a worker that starts waits for its store."""

_DENIED_AGAIN_S = 10.0
"""A role that was made just now is known to every server of the store within a minute."""

log = logging.getLogger(__name__)
T = TypeVar("T")


def once_reached(read: Callable[[], T]) -> T:
    """What `read` gives, as soon as its store answers. A store that is away for minutes is away for
    every node: another node in place of this one would wait as long. Raises `StoreUnavailable`."""
    give_up_s = time.monotonic() + START_PATIENCE_S
    while True:
        try:
            return read()
        except (StoreUnavailable, StoreDenied) as error:
            if time.monotonic() >= give_up_s:
                raise
            time.sleep(_DENIED_AGAIN_S if isinstance(error, StoreDenied) else 0.0)
            log.warning("store not reached, asking again: %s", error)


def driver_watch(store: Store, run_id: str, job: Job) -> DriverWatch | None:
    """What tells a node that costs money that nobody keeps its run's cost limit any more; None
    where there is no limit."""
    if job.limits.max_cost_usd is None:
        return None
    return DriverWatch(store, run_id, time.monotonic)
