"""Where a run is shown: a flow run of Prefect, and the process behind it.

Prefect never learns that a process was killed together with its worker, and would show it as
running for ever. With this record whoever looks next, on any machine, can tell and set it right.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict

from shunt import keys
from shunt.run.driver import Place, is_dead, own_place
from shunt.store.protocol import Store

SHOWING_BEAT_S = 20.0
SHOWING_SILENT_S = 180.0
"""A process of another machine that has not beaten for so long is taken for dead: for display, as
clocks may differ."""


class Showing(BaseModel):
    """One flow run of this run. The process behind it writes it, and who settles it afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1] = 1
    flow_run_id: str
    place: Place
    beat_at: AwareDatetime
    ended: bool = False
    """Whether Prefect has been told how it ended, or is being told."""

    def is_left_behind(self, now: datetime) -> bool:
        """Whether its process is gone, and Prefect does not know."""
        if self.ended:
            return False
        silent = (now - self.beat_at).total_seconds() > SHOWING_SILENT_S
        return silent or is_dead(self.place, own_place())


def write_showing(store: Store, run_id: str, showing: Showing) -> None:
    """The flow run's process writes it while it lives; afterwards all writers say the same."""
    store.put(keys.showing(run_id, showing.flow_run_id), showing.model_dump_json().encode())


def read_showings(store: Store, run_id: str) -> Iterator[Showing]:
    for key in store.list(keys.showing_prefix(run_id)):
        yield Showing.model_validate_json(store.get(key))
