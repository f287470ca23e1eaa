"""One launch of a pipeline over several nodes: its head says who takes part, the others join.

Launches of a place are numbered and created if absent, so of two heads that believe to have the
place, the one with the higher number counts, whatever their clocks say.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from shunt import keys
from shunt.plan.plan import Pipeline
from shunt.plan.seat import Seat
from shunt.store.numbered import newest_number
from shunt.store.protocol import Store


class PipelineLaunch(BaseModel):
    """Who runs which part. Immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1] = 1
    place: str
    """See `Pipeline.place`."""
    number: int
    worker_id: str
    """The head's worker."""
    pipeline: Pipeline
    seats: tuple[Seat, ...]
    """In the order in which the pipeline first comes to their slots; the head's is the first."""
    link_number: int
    """Which of the head's link ports: docs/pipelines.md."""


def announce(store: Store, run_id: str, launch: PipelineLaunch) -> PipelineLaunch:
    """Write the launch under the next free number, which the returned one carries."""
    number = newest_number(store, keys.launch_prefix(run_id, launch.place))
    while True:
        number += 1
        numbered = launch.model_copy(update={"number": number})
        key = keys.launch(run_id, launch.place, number)
        if store.put_if_absent(key, numbered.model_dump_json().encode()):
            return numbered


def newest_launch(store: Store, run_id: str, place: str, *, after: int) -> PipelineLaunch | None:
    """The newest launch of the place, if its number is higher than `after`."""
    number = newest_number(store, keys.launch_prefix(run_id, place))
    if number <= after:
        return None
    return PipelineLaunch.model_validate_json(store.get(keys.launch(run_id, place, number)))
