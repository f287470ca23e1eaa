"""Cancelling a run and carrying on: a numbered list of orders, of which the newest stands."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from shunt import keys
from shunt.store.numbered import newest_number
from shunt.store.protocol import Store


class Order(BaseModel):
    """What the user last asked of the run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1] = 1
    cancelled: bool


def cancel(store: Store, run_id: str) -> bool:
    """Ask every worker of the run to drain. False when that stands already."""
    return _order(store, run_id, cancelled=True)


def carry_on(store: Store, run_id: str) -> bool:
    """Lift a cancellation. False when there is none."""
    return _order(store, run_id, cancelled=False)


def is_cancelled(store: Store, run_id: str) -> bool:
    """Whether the newest order cancels the run."""
    newest = _newest(store, run_id)
    if newest == 0:
        return False
    return Order.model_validate_json(store.get(keys.order(run_id, newest))).cancelled


def _order(store: Store, run_id: str, *, cancelled: bool) -> bool:
    while is_cancelled(store, run_id) != cancelled:
        order = Order(cancelled=cancelled).model_dump_json().encode()
        key = keys.order(run_id, _newest(store, run_id) + 1)
        if store.put_if_absent(key, order):
            return True
    return False


def _newest(store: Store, run_id: str) -> int:
    return newest_number(store, keys.order_prefix(run_id))
