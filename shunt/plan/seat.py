"""Seats: which nodes ever filled a slot of the plan, and where the others reach them.

A pipeline over several nodes finds its nodes here. Whether a node still lives, its heartbeat says.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from shunt import keys
from shunt.store.protocol import Store


class Seat(BaseModel):
    """A node in a slot. Never changes: another node of the slot takes a seat of its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1] = 1
    slot: str
    node_id: str
    address: str
    """IPv4, on the interface by which the run's nodes reach each other."""


def take_seat(store: Store, run_id: str, seat: Seat) -> None:
    """Idempotent."""
    key = keys.seat(run_id, seat.slot, seat.node_id)
    store.put_if_absent(key, seat.model_dump_json().encode())


def read_seats(store: Store, run_id: str, slot: str, *, into: dict[str, Seat]) -> None:
    """Add the seats of the slot that `into` does not have yet, by key."""
    for key in store.list(keys.seat_prefix(run_id, slot)):
        if key not in into:
            into[key] = Seat.model_validate_json(store.get(key))
