"""Traces: how many nodes of a pool could be had, as a step function of time."""

import bisect
import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter

from shunt.errors import InputError

_SHIPPED = Path(__file__).parent / "traces"
_REPEATED_S = 30 * 86400.0
"""As long as a simulation lasts at most."""


class _Entry(BaseModel):
    """One line of the index of what is shipped."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    instance_type: str
    span_s: float
    what: str
    source: str
    licence: str


@dataclass(frozen=True, slots=True)
class Trace:
    """Nodes that can be alive from each instant on; before the first step, none can.

    A trace that ends holds its last value.
    """

    at_s: tuple[float, ...]
    nodes: tuple[int, ...]

    @property
    def peak(self) -> int:
        return max(self.nodes)

    def available(self, at_s: float) -> int:
        position = bisect.bisect_right(self.at_s, at_s)
        return self.nodes[position - 1] if position else 0

    def next_change_s(self, after_s: float) -> float:
        """Infinity where it does not change any more."""
        position = bisect.bisect_right(self.at_s, after_s)
        return self.at_s[position] if position < len(self.at_s) else float("inf")

    def scaled(self, nodes: int) -> "Trace":
        """The same for a fleet of another size: its peak becomes `nodes`, zero stays zero."""
        peak = self.peak
        if peak == 0:
            return self
        return Trace(self.at_s, tuple((2 * n * nodes + peak) // (2 * peak) for n in self.nodes))

    def repeated(self, span_s: float, *, until_s: float) -> "Trace":
        """Begins again every `span_s`, up to the instant."""
        times = range(math.ceil(until_s / span_s))
        return Trace(
            tuple(number * span_s + at for number in times for at in self.at_s),
            self.nodes * len(times),
        )


@dataclass(frozen=True, slots=True)
class ShippedTrace:
    """A recording that comes with the package."""

    name: str
    instance_type: str
    span_s: float
    """From its first node to the end of the recording."""
    what: str
    source: str
    licence: str

    @property
    def path(self) -> Path:
        return _SHIPPED / f"{self.name}.csv"


def shipped_traces() -> dict[str, ShippedTrace]:
    """By name. Each begins with its first node; what was before it is cut off."""
    index = TypeAdapter(dict[str, _Entry]).validate_json((_SHIPPED / "index.json").read_bytes())
    return {
        name: ShippedTrace(name, e.instance_type, e.span_s, e.what, e.source, e.licence)
        for name, e in index.items()
    }


def find_trace(name: str, *, pool: str = "") -> Trace:
    """A shipped trace by its name, over and over for 30 days, or the user's file as it is.

    Raises `InputError`.
    """
    shipped = shipped_traces().get(name)
    if shipped is not None:
        if pool:
            raise InputError(f"trace {name} is one recording; leave --pool out")
        return read_trace(shipped.path).repeated(shipped.span_s, until_s=_REPEATED_S)
    path = Path(name)
    if not path.exists():
        known = ", ".join(shipped_traces())
        raise InputError(f"trace {name}: no such file, and none of those shipped: {known}")
    return read_trace(path, pool=pool)


def read_trace(path: Path, *, pool: str = "") -> Trace:
    """A CSV with `t_s` and `active_instances` (as in Bamboo's traces), ordered by time.

    `pool` picks one recording where the file has several: the start of its name, which is
    `instance_type/zone/start_local`, as far as the file has these columns. Raises `InputError`.
    """
    try:
        with path.open(newline="") as lines:
            rows = [row for row in csv.DictReader(lines) if recording_of(row).startswith(pool)]
        steps = [(float(row["t_s"]), int(float(row["active_instances"]))) for row in rows]
    except (OSError, KeyError, ValueError, TypeError, OverflowError) as error:
        wanted = "a CSV with the columns t_s and active_instances"
        raise InputError(f"trace {path}: not {wanted} ({error})") from error
    if not steps or steps != sorted(steps, key=lambda step: step[0]):
        raise InputError(f"trace {path}: no rows for {pool or 'any pool'}, or not ordered by t_s")
    if any(nodes < 0 for _, nodes in steps):
        raise InputError(f"trace {path}: active_instances below zero")
    return Trace(tuple(at for at, _ in steps), tuple(nodes for _, nodes in steps))


def recording_of(row: Mapping[str, str]) -> str:
    """Name of the recording that a row of a trace file belongs to."""
    return "/".join(row.get(column) or "" for column in ("instance_type", "zone", "start_local"))
