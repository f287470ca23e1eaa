"""Cancelling a run and carrying on: a numbered list of orders, of which the newest stands."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from shunt import keys
from shunt.store.numbered import newest_number
from shunt.store.protocol import Store

RUN_CANCELLED = "the run was cancelled"
"""Why a worker leaves that finds such an order."""


class Order(BaseModel):
    """What the user last asked of the run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1] = 1
    cancelled: bool


def cancel(store: Store, run_id: str) -> bool:
    """Ask every worker of the run to drain. False when that stands already."""
    while not _cancels(store, run_id, newest := newest_order(store, run_id)):
        if _write(store, run_id, newest + 1, cancelled=True):
            return True
    return False


def carry_on(store: Store, run_id: str, order: int) -> None:
    """Lift the cancellation that stood as this order when somebody asked to go on; one that was
    given since then stands. May be repeated."""
    if _cancels(store, run_id, order):
        _write(store, run_id, order + 1, cancelled=False)


def is_cancelled(store: Store, run_id: str) -> bool:
    """Whether the newest order cancels the run."""
    return _cancels(store, run_id, newest_order(store, run_id))


def newest_order(store: Store, run_id: str) -> int:
    """0 where there is none."""
    return newest_number(store, keys.order_prefix(run_id))


def _cancels(store: Store, run_id: str, number: int) -> bool:
    if number == 0:
        return False
    return Order.model_validate_json(store.get(keys.order(run_id, number))).cancelled


def _write(store: Store, run_id: str, number: int, *, cancelled: bool) -> bool:
    order = Order(cancelled=cancelled).model_dump_json().encode()
    return store.put_if_absent(keys.order(run_id, number), order)
