"""A drill in virtual time: nodes come and go by a trace, and the work goes on where it stopped.

Every node makes `tokens_per_s`. It first starts up for `startup_s`. When the trace has fewer nodes
than live, the youngest are taken: with a notice they save everything but make nothing after the
drain; without one, what they made since their last checkpoint is generated again. The pool is asked
again whenever the trace changes. Between events everything is linear, so a day of a thousand nodes
takes as many steps as the trace has changes and nodes have starts.
"""

import heapq
import random
from dataclasses import dataclass, field
from enum import StrEnum

from shunt.drill.trace import Trace


class Handling(StrEnum):
    """What happens to the work of a node that goes."""

    SHUNT = "shunt"
    NONE = "none"
    """The whole request batch of the node starts again: what a plain engine does."""
    ON_DEMAND = "on-demand"
    """Nodes are never taken, and cost the on-demand price."""


@dataclass(frozen=True, slots=True)
class DrillSettings:
    """The job and the market, reduced to what decides cost and time."""

    total_tokens: float
    nodes: int
    tokens_per_s: float
    spot_usd_per_hour: float
    on_demand_usd_per_hour: float
    startup_s: float = 240.0
    """Boot and loading of the weights."""
    checkpoint_s: float = 10.0
    request_s: float = 300.0
    """Greatest age of a request: what is lost where nothing is saved; half of it on average."""
    notice_s: float = 120.0
    drain_s: float = 5.0
    unnoticed: float = 0.1
    """Share of the interruptions that come without a notice."""
    horizon_s: float = 30 * 86400.0


@dataclass(frozen=True, slots=True)
class DrillResult:
    """`finish_s` is None where the horizon came first."""

    finish_s: float | None
    cost_usd: float
    tokens_again: float
    interruptions: int
    node_hours: float
    events: int


@dataclass(slots=True)
class _Run:
    settings: DrillSettings
    handling: Handling
    rng: random.Random
    now_s: float = 0.0
    done_tokens: float = 0.0
    running: int = 0
    starts: list[float] = field(default_factory=list[float])
    """When each starting node begins to work: a heap."""
    leaving: list[float] = field(default_factory=list[float])
    """When each drained node stops to cost: a heap."""
    node_s: float = 0.0
    again: float = 0.0
    interruptions: int = 0
    events: int = 0

    @property
    def living(self) -> int:
        return self.running + len(self.starts)


def simulate(
    settings: DrillSettings, trace: Trace, handling: Handling, *, rng: random.Random
) -> DrillResult:
    """Play the job against the trace until its last token."""
    run = _Run(settings, handling, rng)
    finish_s = None
    while run.now_s < settings.horizon_s:
        run.events += 1
        _match(run, trace)
        left_s = _left_s(run)
        next_s = min(
            run.starts[0] if run.starts else float("inf"),
            run.leaving[0] if run.leaving else float("inf"),
            float("inf") if handling is Handling.ON_DEMAND else trace.next_change_s(run.now_s),
            settings.horizon_s,
        )
        if run.now_s + left_s <= next_s:
            _pass(run, run.now_s + left_s)
            finish_s = run.now_s
            break
        _pass(run, next_s)
    price = settings.spot_usd_per_hour
    if handling is Handling.ON_DEMAND:
        price = settings.on_demand_usd_per_hour
    return DrillResult(
        finish_s=finish_s,
        cost_usd=run.node_s / 3600 * price,
        tokens_again=run.again,
        interruptions=run.interruptions,
        node_hours=run.node_s / 3600,
        events=run.events,
    )


def _left_s(run: _Run) -> float:
    if not run.running:
        return float("inf")
    left = run.settings.total_tokens - run.done_tokens
    return max(0.0, left) / (run.running * run.settings.tokens_per_s)


def _match(run: _Run, trace: Trace) -> None:
    """Reconcile: take what the trace takes, ask for what is missing."""
    allowed = run.settings.nodes
    if run.handling is not Handling.ON_DEMAND:
        allowed = min(allowed, trace.available(run.now_s))
    while run.living > allowed:
        _take_one(run)
    while run.living < allowed:
        heapq.heappush(run.starts, run.now_s + run.settings.startup_s)


def _take_one(run: _Run) -> None:
    settings = run.settings
    run.interruptions += 1
    if run.starts:
        run.starts.remove(max(run.starts))  # the youngest; a suffix of a heap stays one if re-made
        heapq.heapify(run.starts)
        return
    run.running -= 1
    noticed = run.rng.random() >= settings.unnoticed
    lost_s = 0.0
    if run.handling is Handling.NONE:
        lost_s = run.rng.uniform(0.0, settings.request_s)
    elif not noticed:
        lost_s = run.rng.uniform(0.0, settings.checkpoint_s)
    lost = min(run.done_tokens, lost_s * settings.tokens_per_s)
    run.done_tokens -= lost
    run.again += lost
    if noticed:
        stays_s = settings.drain_s if run.handling is Handling.SHUNT else settings.notice_s
        heapq.heappush(run.leaving, run.now_s + stays_s)


def _pass(run: _Run, until_s: float) -> None:
    """Let time pass to the next event, and let it happen."""
    span_s = until_s - run.now_s
    run.done_tokens += run.running * run.settings.tokens_per_s * span_s
    run.node_s += (run.living + len(run.leaving)) * span_s
    run.now_s = until_s
    while run.starts and run.starts[0] <= until_s:
        heapq.heappop(run.starts)
        run.running += 1
    while run.leaving and run.leaving[0] <= until_s:
        heapq.heappop(run.leaving)
