"""Tokens per second and rows ended over time, from the curves that nodes carry in their words."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import pairwise

from shunt import keys
from shunt.report.report import Curve, Lane, RowsDone, Tail
from shunt.run.node_course import Sample
from shunt.run.node_status import NodeStatus

NUM_STEPS = 120
"""Of a curve: a step is then some six pixels of a page."""
SHORTEST_STEP_S = 1.0
_MOST_UNSEEN = 0.05
"""Of the rows: a curve that misses more of them says nothing of the tail."""
MOST_SLOTS = 6
"""Told apart in one picture."""

_Points = list[tuple[float, float]]
"""Seconds of the run, and a count that only grows."""


def curve_of(
    nodes: Sequence[NodeStatus], lanes: Sequence[Lane], began: datetime, *, duration_s: float
) -> Curve:
    """Each node's tokens, spread evenly between two of its samples, over steps of equal length."""
    step_s = max(SHORTEST_STEP_S, duration_s / NUM_STEPS)
    num_steps = max(1, -(-int(duration_s * 1000) // int(step_s * 1000)))
    slot_of = {life.node_id: lane.slot for lane in lanes for life in lane.lives}
    by_slot: dict[str, list[float]] = defaultdict(lambda: [0.0] * num_steps)
    for node in nodes:
        steps = by_slot[slot_of.get(keys.machine_of(node.node_id), "")]
        points = _points(node, began, [float(s.tokens) for s in node.course.samples])
        for (from_s, before), (to_s, after) in pairwise(points):
            _spread(steps, step_s, from_s, to_s, max(0.0, after - before))
    whole = [sum(each) for each in zip(*by_slot.values(), strict=True)] or [0.0] * num_steps
    apart = _in_order(by_slot, lanes) if 1 < len(by_slot) <= MOST_SLOTS else []
    return Curve(
        step_s=step_s,
        tokens_per_s=_rates(whole, step_s),
        by_slot={slot: _rates(by_slot[slot], step_s) for slot in apart},
    )


def rows_of(
    nodes: Sequence[NodeStatus], began: datetime, *, refused: int, total: int, all_ended: bool
) -> tuple[RowsDone, ...]:
    """Rows that had ended, over time. `refused`: error rows of preflight, which had ended before
    anything began.

    Of a worker that dies the rows since its last heartbeat are not seen to end: where all have
    ended, these few are counted at the last instant.
    """
    grown: list[tuple[float, float]] = []
    for node in nodes:
        points = _points(node, began, [float(s.rows_finished) for s in node.course.samples])
        grown += [
            (to_s, after - before)
            for (_, before), (to_s, after) in pairwise(points)
            if after > before
        ]
    rows = float(refused)
    found = [RowsDone(0.0, refused)]
    for at_s, more in sorted(grown):
        rows = min(total, rows + more)
        found.append(RowsDone(at_s, round(rows)))
    if all_ended and (1 - _MOST_UNSEEN) * total <= rows < total:
        found.append(RowsDone(found[-1].at_s, total))
    return tuple(found)


def tail_of(rows: Sequence[RowsDone], *, total: int) -> Tail | None:
    """None while rows are missing: an open run, or one whose nodes carried no curve."""
    if not rows or rows[-1].rows < total or total == 0:
        return None
    counts = [done.rows for done in rows]

    def when(share: float) -> float:
        return rows[bisect_left(counts, share * total)].at_s

    return Tail(
        half_s=when(0.5), p90_s=when(0.9), p95_s=when(0.95), p99_s=when(0.99), last_s=when(1.0)
    )


def _points(node: NodeStatus, began: datetime, counts: Sequence[float]) -> _Points:
    offset_s = (node.started_at - began).total_seconds()
    samples: Sequence[Sample] = node.course.samples
    found = [(max(0.0, offset_s + s.at_s), n) for s, n in zip(samples, counts, strict=True)]
    return [(max(0.0, offset_s), 0.0), *found] if found else []


def _spread(steps: list[float], step_s: float, from_s: float, to_s: float, count: float) -> None:
    """Add a count to the steps that the time from one instant to the other touches."""
    last = len(steps) - 1
    if to_s <= from_s:
        steps[min(last, int(to_s / step_s))] += count
        return
    for number in range(min(last, int(from_s / step_s)), min(last, int(to_s / step_s)) + 1):
        begins = number * step_s
        ends = begins + step_s if number < last else max(to_s, begins + step_s)
        inside_s = min(to_s, ends) - max(from_s, begins)
        steps[number] += count * max(0.0, inside_s) / (to_s - from_s)


def _rates(counts: Sequence[float], step_s: float) -> tuple[float, ...]:
    return tuple(round(count / step_s, 2) for count in counts)


def _in_order(slots: Mapping[str, object], lanes: Sequence[Lane]) -> list[str]:
    known = [lane.slot for lane in lanes if lane.slot in slots]
    return [*known, *(slot for slot in slots if slot not in known)]
