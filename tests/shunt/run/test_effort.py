"""What is left of a run, from tokens: no pace of the last minute, and none is not nothing."""

from datetime import UTC, datetime

import pytest

from shunt.run.effort import Effort
from shunt.run.node_status import NodeState, NodeStatus
from shunt.run.status import RunState, RunStatus, ShardStatus

AT = datetime(2026, 3, 1, tzinfo=UTC)


def node(name: str, tokens: int, *, busy: bool = True, rows: int = 0) -> NodeStatus:
    return NodeStatus(
        node_id=name,
        pid=1,
        state=NodeState.RUNNING if busy else NodeState.STARTING,
        started_at=AT,
        updated_at=AT,
        shards={name: 0} if busy else {},
        output_tokens=tokens,
        rows_finished=rows,
    )


def status(*nodes: NodeStatus, done: int = 0, of: int = 10, tokens_a_row: int = 50) -> RunStatus:
    """Ten shards of ten rows."""
    shards = tuple(
        ShardStatus(str(n), 10, 10 * (n < done), 0, 10 * tokens_a_row * (n < done), 0, "", n < done)
        for n in range(of)
    )
    return RunStatus("r", AT, RunState.OPEN, 10 * of, 10 * done, 0, 0, shards, nodes)


def test_before_the_first_token_nobody_knows() -> None:
    effort = Effort(max_tokens=100)
    for second in range(0, 600, 60):
        effort.saw(second, status(node("a", 0, busy=False)))
    assert effort.left_s(status(node("a", 0)), 2) is None


def test_before_the_first_row_a_row_takes_what_it_may() -> None:
    effort = Effort(max_tokens=100)
    for second in range(0, 61, 10):
        effort.saw(second, status(node("a", 10 * second)))
    assert effort.left_s(status(node("a", 600)), 1) == pytest.approx((100 * 100 - 600) / 10)


def test_rows_that_ended_tell_what_the_others_take() -> None:
    effort = Effort(max_tokens=1000)
    for second in range(0, 61, 10):
        effort.saw(second, status(node("a", 100 * second)))
    now = status(node("a", 5000), done=5)
    assert effort.left_s(now, 1) == pytest.approx((50 * 50 - 2500) / 100 + 50 / 100, abs=1)


def test_a_lost_fleet_and_one_that_starts_change_nothing() -> None:
    effort = Effort(max_tokens=100)
    for second in range(0, 601, 10):
        effort.saw(second, status(node("a", 10 * second), node("b", 10 * second)))
    before = effort.left_s(status(node("a", 6000), node("b", 6000), of=100), 2)
    lost = [node("a", 6000, busy=False), node("b", 6000, busy=False)]
    for second in range(610, 4200, 10):
        effort.saw(second, status(*lost, of=100))
    assert before is not None
    assert effort.left_s(status(*lost, of=100), 2) == pytest.approx(before)
    assert effort.left_s(status(*lost, of=100), 4) == pytest.approx(before / 2)
