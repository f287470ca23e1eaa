"""What a drill found: shunt on spot nodes, against no handling, and against on-demand."""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from shunt.drill.simulation import Handling


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DrillArm(_Record):
    """One way to meet the trace. Times are the trace's."""

    handling: Handling
    finish_s: float | None
    """None: not before the horizon, or not at all."""
    cost_usd: float
    tokens: float
    """In the results."""
    tokens_again: float
    """Generated more than once. In a real drill as far as workers told it before they went."""
    interruptions: int
    node_hours: float


class DrillReport(_Record):
    """All ways, and what they were played with."""

    format_version: Literal[1] = 1
    mode: Literal["virtual", "real"]
    trace: str
    nodes: int
    speedup: float = 1.0
    """Seconds of the trace in a second of the wall clock."""
    spot_usd_per_hour: float
    on_demand_usd_per_hour: float
    assumptions: tuple[str, ...] = ()
    """Sentences: what was not told and therefore taken."""
    arms: tuple[DrillArm, ...]

    def arm(self, handling: Handling) -> DrillArm | None:
        return next((arm for arm in self.arms if arm.handling is handling), None)

    @property
    def goodput(self) -> float | None:
        """Tokens per node hour, as a share of those of nodes that nobody takes."""
        ours, undisturbed = self.arm(Handling.SHUNT), self.arm(Handling.ON_DEMAND)
        if ours is None or undisturbed is None or not ours.node_hours or not undisturbed.tokens:
            return None
        if ours.finish_s is None or undisturbed.finish_s is None:
            return None
        best = undisturbed.tokens / undisturbed.node_hours
        return ours.tokens / ours.node_hours / best


def cost_of(node_s: float, usd_per_hour: float) -> float:
    return node_s / 3600.0 * usd_per_hour


def sentences(report: DrillReport) -> Sequence[str]:
    """What it comes to, for people."""
    ours = report.arm(Handling.SHUNT)
    if ours is None:
        return ()
    told: list[str] = []
    for handling, name in ((Handling.ON_DEMAND, "on-demand"), (Handling.NONE, "no handling")):
        other = report.arm(handling)
        if other is None:
            continue
        if ours.finish_s is None or other.finish_s is None:
            told.append(f"against {name}: one of them does not finish")
            continue
        cost = f"{ours.cost_usd / other.cost_usd:.0%} of the cost, " if other.cost_usd else ""
        told.append(f"against {name}: {cost}{ours.finish_s / other.finish_s:.2f} of the time")
    if report.goodput is not None:
        told.append(f"goodput: {report.goodput:.1%} of undisturbed nodes' tokens per node hour")
    return told
