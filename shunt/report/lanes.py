"""Lives of nodes, by the place that they filled, from the timeline and from their last words."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import pairwise

from shunt import keys
from shunt.fleet.worker_exit import WorkerExit
from shunt.report.report import (
    Activity,
    Ending,
    Interruption,
    Lane,
    Life,
    Resumption,
    Span,
    StartUp,
)
from shunt.run.event import Event, EventKind
from shunt.run.node_course import NodeState
from shunt.run.node_status import NodeStatus
from shunt.run.status import RunStatus

_UNPLACED = "joined"
"""Of nodes that no controller launched."""


def began_at(status: RunStatus, created_at: datetime) -> datetime:
    """When the first worker was started; the run's preparation, where none was."""
    starts = [e.at for e in status.events if e.kind is EventKind.WORKER_STARTED]
    starts += [node.started_at for node in status.nodes]
    return min(starts, default=created_at)


def lanes_of(status: RunStatus, began: datetime) -> tuple[Lane, ...]:
    """One lane per place, in the order of their names; their lives in the order of their starts."""
    words = _last_words(status.nodes)
    slots: dict[str, list[Life]] = defaultdict(list)
    ends = _ends_of(status.events)
    living = {keys.machine_of(node.node_id) for node in status.living}

    def life(start: Event) -> Life:
        machine = start.node_id
        nodes = words.get(machine, [])
        return _life(start, nodes, ends.get(machine, []), began, lives=machine in living)

    told = [e for e in status.events if e.kind is EventKind.WORKER_STARTED]
    for event in told:
        slots[event.slot].append(life(event))
    launched = {event.node_id for event in told}
    for machine, nodes in words.items():
        if machine not in launched:
            start = Event(at=nodes[0].started_at, kind=EventKind.WORKER_STARTED, node_id=machine)
            slots[_UNPLACED].append(life(start))
    return tuple(
        Lane(slot=slot, lives=tuple(sorted(lives, key=lambda life: life.began_s)))
        for slot, lives in sorted(slots.items(), key=lambda item: _natural(item[0]))
    )


def interruptions_of(lanes: Sequence[Lane]) -> tuple[Interruption, ...]:
    """In the order of time."""
    found = [
        Interruption(
            at_s=life.ended_s,
            slot=lane.slot,
            node_id=life.node_id,
            reason=life.reason,
            lost_tokens=life.lost_tokens,
            replaced_after_s=_back_after_s(lane, number),
        )
        for lane in lanes
        for number, life in enumerate(lane.lives)
        if life.ending == "interrupted"
    ]
    return tuple(sorted(found, key=lambda interruption: interruption.at_s))


def resumptions_of(status: RunStatus, began: datetime) -> tuple[Resumption, ...]:
    """Shards that changed hands, in the order of time."""
    return tuple(
        Resumption(_since(event.at, began), event.node_id, event.shard_id, event.num_tokens)
        for event in status.events
        if event.kind is EventKind.SHARD_RESUMED
    )


def startups_of(lanes: Sequence[Lane]) -> tuple[StartUp, ...]:
    """Of every node that said anything."""
    found: list[StartUp] = []
    for lane in lanes:
        for life in lane.lives:
            seconds = {
                kind: sum(span.to_s - span.from_s for span in life.spans if span.activity == kind)
                for kind in ("booting", "starting")
            }
            served = any(span.activity in ("running", "idle") for span in life.spans)
            if life.spans:
                found.append(
                    StartUp(
                        slot=lane.slot,
                        node_id=life.node_id,
                        boot_s=seconds["booting"],
                        load_s=seconds["starting"] if served else None,
                    )
                )
    return tuple(found)


def _ends_of(events: Iterable[Event]) -> dict[str, list[Event]]:
    """By machine, in the order of time."""
    found: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        if event.kind in (EventKind.INTERRUPTED, EventKind.WORKER_ENDED):
            found[event.node_id].append(event)
    return found


def _life(
    start: Event,
    nodes: Sequence[NodeStatus],
    ends: Sequence[Event],
    began: datetime,
    *,
    lives: bool,
) -> Life:
    """`nodes`: what the machine said of itself, and each of its workers, the workers first."""
    workers = [node for node in nodes if not node.slot]
    heard = max((node.updated_at for node in nodes), default=start.at)
    told = next((e.detail for e in ends if e.kind is EventKind.INTERRUPTED), None)
    ended_at = max(start.at, ends[-1].at if ends else heard)
    return Life(
        node_id=start.node_id,
        began_s=_since(start.at, began),
        ended_s=_since(ended_at, began),
        ending=_ending(workers, ends, lives=lives),
        reason=told or "",
        spans=_spans(start.at, ended_at, workers, began),
        rows=sum(node.rows_finished for node in workers),
        tokens=sum(node.output_tokens for node in workers),
        taken_over_tokens=sum(node.resumed_tokens for node in workers),
        lost_tokens=sum(
            node.unsaved_tokens
            for node in workers
            if told is not None and node.state is not NodeState.ENDED
        ),
    )


def _ending(workers: Sequence[NodeStatus], ends: Sequence[Event], *, lives: bool) -> Ending:
    if any(event.kind is EventKind.INTERRUPTED for event in ends):
        return "interrupted"
    if lives:
        return "living"
    done = any(node.exit_code == WorkerExit.DONE for node in workers)
    return "done" if done or ends else "stopped"


def _spans(
    launched: datetime, ended: datetime, workers: Sequence[NodeStatus], began: datetime
) -> tuple[Span, ...]:
    """What a node was at from its launch to its end: of several workers, what the busiest was."""
    if not workers:
        return ()
    turns = [_turns(node) for node in workers]
    instants = sorted({launched, ended, *(at for each in turns for at, _ in each)})
    spans: list[Span] = []
    for start, end in pairwise(instants):
        if start < launched or end > ended:
            continue
        at_once: list[Activity] = [_state_at(each, start) for each in turns]
        activity = max(at_once, key=_BUSIEST_LAST.index)
        if spans and spans[-1].activity == activity:
            spans[-1] = spans[-1]._replace(to_s=_since(end, began))
        else:
            spans.append(Span(activity, _since(start, began), _since(end, began)))
    return tuple(spans)


_BUSIEST_LAST: tuple[Activity, ...] = ("booting", "idle", "starting", "draining", "running")
_ACTIVITY: dict[NodeState, Activity] = {
    NodeState.STARTING: "starting",
    NodeState.RUNNING: "running",
    NodeState.IDLE: "idle",
    NodeState.DRAINING: "draining",
}


def _turns(node: NodeStatus) -> list[tuple[datetime, NodeState]]:
    """A worker of an earlier version says no more than when it began."""
    turns = [(turn.at_s, turn.state) for turn in node.course.turns] or [(0.0, NodeState.RUNNING)]
    return [(node.started_at + timedelta(seconds=at_s), state) for at_s, state in turns]


def _state_at(turns: Sequence[tuple[datetime, NodeState]], at: datetime) -> Activity:
    states = [state for since, state in turns if since <= at]
    return _ACTIVITY.get(states[-1], "booting") if states else "booting"


def _back_after_s(lane: Lane, number: int) -> float | None:
    lost = lane.lives[number]
    for life in lane.lives[number + 1 :]:
        for span in life.spans:
            if span.activity == "running":
                return max(0.0, span.from_s - lost.ended_s)
    return None


def _last_words(nodes: Iterable[NodeStatus]) -> dict[str, list[NodeStatus]]:
    """By machine, in the order of their starts."""
    found: dict[str, list[NodeStatus]] = defaultdict(list)
    for node in sorted(nodes, key=lambda node: node.started_at):
        found[keys.machine_of(node.node_id)].append(node)
    return found


def _since(at: datetime, began: datetime) -> float:
    return max(0.0, (at - began).total_seconds())


def _natural(slot: str) -> list[tuple[int, str]]:
    """`worker-2` before `worker-10`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", slot)]
