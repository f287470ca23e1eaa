"""What a run's nodes have cost, as its controller last worked it out: for display and for limits.

`shunt.aws.money.bill` has the arithmetic; this is the figure that everybody may read.
"""

from decimal import Decimal
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict

from shunt import keys
from shunt.store.errors import ObjectMissing
from shunt.store.protocol import Store


class PoolSpend(BaseModel):
    """What the nodes of one pool have cost."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    instance_type: str
    zone: str
    market: Literal["spot", "on-demand"]
    num_nodes: int
    node_hours: float
    usd: Decimal
    """To the cent."""
    on_demand_usd: Decimal | None
    """The same hours at the on-demand price; None where that is not known."""


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
    pools: tuple[PoolSpend, ...] = ()
    """Their sum is `usd`, but for rounding. Empty in what earlier versions wrote."""


def write_spend(store: Store, run_id: str, spend: Spend) -> None:
    """Two controllers of one run would write the same sum, so the last one may win."""
    store.put(keys.spend(run_id), spend.model_dump_json().encode())


def read_spend(store: Store, run_id: str) -> Spend | None:
    """None for a run that never bought a node."""
    try:
        return Spend.model_validate_json(store.get(keys.spend(run_id)))
    except ObjectMissing:
        return None
