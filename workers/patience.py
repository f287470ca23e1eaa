"""Waiting for a store that is away while a worker starts."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from shunt.store.errors import StoreUnavailable

START_PATIENCE_S = 600.0
"""How long a worker that starts waits for its store."""

log = logging.getLogger(__name__)
T = TypeVar("T")


def once_reached(read: Callable[[], T]) -> T:
    """What `read` gives, as soon as its store answers. A store that is away for minutes is away for
    every node: another node in place of this one would wait as long. Raises `StoreUnavailable`."""
    give_up_s = time.monotonic() + START_PATIENCE_S
    while True:
        try:
            return read()
        except StoreUnavailable as error:
            if time.monotonic() >= give_up_s:
                raise
            log.warning("store not reached, asking again: %s", error)
