"""Pools that a slot may be bought from, and those that refused us a while ago."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from shunt.aws.errors import (
    AwsError,
    CapacityError,
    ConfigurationError,
    NotOffered,
    QuotaError,
)
from shunt.plan.plan import NodeSlot

Market = Literal["spot", "on-demand"]

BLOCK_S = 180.0
"""Capacity that was missing is not asked for again for so long (Karpenter's time)."""
REMEMBERED_S = 3600.0
"""A pool that was refused may be refused again: whoever needs another one with it asks it first."""
QUOTA_BLOCK_S = 900.0
"""Quotas change when other nodes end or by a support case: look again every quarter of an hour."""


class Pool(NamedTuple):
    """Where one node can come from."""

    instance_type: str
    zone: str
    market: Market

    @property
    def family(self) -> str:
        return self.instance_type.split(".", 1)[0]


@dataclass(frozen=True, slots=True)
class SlotSpec:
    """What may fill a slot."""

    slot: str
    pools: tuple[Pool, ...]
    group: str = ""
    """Of nodes that work together: they share a zone and, there, a placement group."""
    heads: bool = False
    """Whether a pipeline over several nodes begins on it: its loss costs more than another's."""
    waits_for: str = ""
    """Why it is not to be bought now, whatever is open: see `one_zone`."""


def spec_of(
    node: NodeSlot, zones: tuple[str, ...], group: str = "", *, heads: bool = False
) -> SlotSpec:
    """The plan's node as pools: its own zone first; the others where any will do, or where it has
    to be where its group is."""
    own = (node.zone,) if node.zone else ()
    chosen = dict.fromkeys((*own, *zones)) if group or not own else own
    pools = tuple(Pool(node.instance_type, zone, node.market) for zone in chosen)
    return SlotSpec(node.slot, pools, group, heads)


@dataclass(slots=True)
class Blocklist:
    """Pools and families not to be asked now. Losing it costs one refused call per entry."""

    monotonic: Callable[[], float]
    _until: dict[tuple[str, str, str], float] = field(
        default_factory=dict[tuple[str, str, str], float]
    )

    def copy(self) -> "Blocklist":
        """As it is now, for another thread."""
        return Blocklist(self.monotonic, dict(self._until))

    def block(self, pool: Pool, *, for_s: float = BLOCK_S) -> None:
        """Renewed at every refusal."""
        self._until[pool] = self.monotonic() + for_s

    def block_family(self, pool: Pool, *, for_s: float = QUOTA_BLOCK_S) -> None:
        """A quota holds in the whole region: other zones would only say the same."""
        self._until[(pool.family, "", pool.market)] = self.monotonic() + for_s

    def refused(self, pool: Pool, error: AwsError) -> None:
        """Close what the error says is closed; nothing for errors that are about no pool."""
        match error:
            case NotOffered():
                self.block(pool, for_s=math.inf)
            case CapacityError():
                self.block(pool)
            case QuotaError():
                self.block_family(pool)
            case _:
                pass

    def open_pools(self, pools: tuple[Pool, ...]) -> tuple[Pool, ...]:
        return tuple(pool for pool in pools if self.wait_s(pool) <= 0.0)

    def refused_lately(self, pool: Pool) -> bool:
        """Whether it was blocked within the last hour, or is."""
        until = self._until.get(pool)
        return until is not None and self.monotonic() - until < REMEMBERED_S

    def closed(self) -> frozenset[tuple[str, str, str]]:
        """What is blocked now: pools, and families (without a zone)."""
        now_s = self.monotonic()
        return frozenset(name for name, until_s in self._until.items() if until_s > now_s)

    def wait_s(self, pool: Pool) -> float:
        """Seconds until the pool may be asked again."""
        until = max(
            self._until.get(pool, 0.0),
            self._until.get((pool.family, "", pool.market), 0.0),
        )
        return max(0.0, until - self.monotonic())


def offered_nowhere(spec: SlotSpec) -> ConfigurationError:
    names = ", ".join(sorted({f"{pool.instance_type} in {pool.zone}" for pool in spec.pools}))
    told = f"EC2 does not have {names}: name other types or zones; shunt offers lists them"
    return ConfigurationError("run_instances", "NotOffered", told)
