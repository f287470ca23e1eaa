"""How fast a run goes and when it may end, from one look: nodes carry their own last minutes.

So whoever looks for the first time, from any machine, knows as much as who has watched all along.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from shunt.run.effort import Effort
from shunt.run.node_status import NodeStatus
from shunt.run.status import RunStatus

WINDOWS_S = (30.0, 120.0, 600.0)
"""The speed of the next hours was seen in one of these, if it was seen at all: just now, before the
last start of an engine, before the last interruption."""

SOONEST_S = 10.0
"""After the first token: sooner, a range would be a guess."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """Speed now, by worker, and the time that is left as a range."""

    tokens_per_s: float
    by_worker: Mapping[str, float]
    """Of living workers."""
    eta_s: tuple[float, float] | None
    """Soonest and latest, if it goes on as in the best and in the worst of the last windows; None
    where nothing moved."""


def outlook_of(status: RunStatus, max_tokens: int) -> Outlook:
    """`max_tokens`: of a row at most, see `shunt.run.effort.answer_tokens`."""
    workers = [node for node in status.nodes if not node.slot]
    now = max((node.updated_at for node in workers), default=status.read_at)
    by_worker = {node.node_id: _rate(node, node.updated_at, WINDOWS_S[0]) for node in status.living}
    lasted_s = (now - _first_token_at(workers, now)).total_seconds()
    windows = [min(w, lasted_s) for w in WINDOWS_S if lasted_s >= SOONEST_S]
    rates = [sum(_rate(node, now, window_s) for node in workers) for window_s in windows]
    moving = [rate for rate in rates if rate > 0]
    left = Effort(max_tokens).tokens_left(status) if status.rows_left else 0.0
    return Outlook(
        tokens_per_s=sum(by_worker.values()),
        by_worker=by_worker,
        eta_s=(left / max(moving), left / min(moving)) if moving else None,
    )


def _first_token_at(workers: Sequence[NodeStatus], now: datetime) -> datetime:
    """Engines that load, before anything was made, say nothing of the speed."""
    firsts = [
        node.started_at + timedelta(seconds=before.at_s)
        for node in workers
        for before, after in pairwise(node.course.samples)
        if before.tokens == 0 < after.tokens
    ]
    return min(firsts, default=now)


def _rate(node: NodeStatus, until: datetime, window_s: float) -> float:
    """Tokens per second of the window that ends at this instant."""
    made = _tokens_at(node, until) - _tokens_at(node, until - timedelta(seconds=window_s))
    return max(0.0, made) / window_s


def _tokens_at(node: NodeStatus, at: datetime) -> float:
    """Between two samples as if they were made evenly; after the last one, no more."""
    samples = node.course.samples
    at_s = (at - node.started_at).total_seconds()
    after = bisect_right(samples, at_s, key=lambda sample: sample.at_s)
    if after == 0:
        return 0.0
    before = samples[after - 1]
    if after == len(samples):
        return float(before.tokens)
    then = samples[after]
    share = (at_s - before.at_s) / (then.at_s - before.at_s)
    return before.tokens + share * (then.tokens - before.tokens)
