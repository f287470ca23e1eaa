"""What a run's nodes have cost, as its controller last worked it out: for display and for limits.

`shunt.aws.money.bill` has the arithmetic; this is the figure that everybody may read.
"""

from decimal import Decimal
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict

from shunt import keys
from shunt.store.errors import ObjectMissing
from shunt.store.protocol import Store


class Spend(BaseModel):
    """Money as of an instant, over all invocations of the run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1] = 1
    at: AwareDatetime
    usd: Decimal
    """To the cent."""
    usd_per_hour: Decimal
    """Of the nodes that lived then."""
    num_nodes: int
    """That lived then."""
    num_launched: int
    max_cost_usd: float | None = None


def write_spend(store: Store, run_id: str, spend: Spend) -> None:
    """Two controllers of one run would write the same sum, so the last one may win."""
    store.put(keys.spend(run_id), spend.model_dump_json().encode())


def read_spend(store: Store, run_id: str) -> Spend | None:
    """None for a run that never bought a node."""
    try:
        return Spend.model_validate_json(store.get(keys.spend(run_id)))
    except ObjectMissing:
        return None
