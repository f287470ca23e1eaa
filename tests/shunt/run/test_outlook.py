"""Speed and time left from one look, by the curves that nodes carry."""

from datetime import UTC, datetime, timedelta

import pytest

from shunt.run.node_course import NodeCourse, NodeState, Sample
from shunt.run.node_status import NodeStatus
from shunt.run.outlook import outlook_of
from shunt.run.status import RunState, RunStatus, ShardStatus

START = datetime(2026, 3, 1, tzinfo=UTC)


def node(name: str, rate: float, lasted_s: int, *, slow_before_s: int = 0) -> NodeStatus:
    """Generates at `rate`, and at a tenth of it before `slow_before_s`."""
    tokens, samples = 0.0, [Sample(0.0, 0, 0, 0)]
    for at_s in range(2, lasted_s + 1, 2):
        tokens += 2 * rate * (0.1 if at_s <= slow_before_s else 1.0)
        samples.append(Sample(float(at_s), int(tokens), 0, 8))
    end = START + timedelta(seconds=lasted_s)
    return NodeStatus(
        node_id=name, pid=1, state=NodeState.RUNNING, started_at=START, updated_at=end,
        output_tokens=int(tokens), course=NodeCourse(samples=tuple(samples)),
    )  # fmt: skip


def status(*nodes: NodeStatus, left: int = 100) -> RunStatus:
    """100 rows of 50 tokens have ended, `left` are open."""
    shards = (
        ShardStatus("000000", 100, 100, 0, 5_000, 0, "", done=True),
        ShardStatus("000001", left, 0, 0, 0, 0, "", done=False),
    )
    read_at = max((n.updated_at for n in nodes), default=START)
    return RunStatus("run", read_at, RunState.OPEN, 100 + left, 100, 0, 5_000, shards, nodes)


def test_an_even_run_has_a_narrow_range() -> None:
    outlook = outlook_of(status(node("a", 30.0, 100), node("b", 20.0, 100)), 64)
    assert outlook.tokens_per_s == pytest.approx(50, rel=0.05)
    assert outlook.by_worker == {"a": pytest.approx(30, rel=0.05), "b": pytest.approx(20, rel=0.05)}
    assert outlook.eta_s is not None
    soonest_s, latest_s = outlook.eta_s
    # 100 rows of 50 tokens, of which what was generated beyond the ended rows is done already.
    assert soonest_s == pytest.approx(latest_s, rel=0.05)
    assert soonest_s == pytest.approx((100 * 50 - (3000 + 2000 - 5000)) / 50, rel=0.1)


def test_a_run_that_got_faster_has_a_wide_one() -> None:
    outlook = outlook_of(status(node("a", 50.0, 300, slow_before_s=240), left=1000), 64)
    assert outlook.eta_s is not None
    assert outlook.eta_s[1] > 1.5 * outlook.eta_s[0]


def test_nothing_moved_nothing_known() -> None:
    assert outlook_of(status(), 64).eta_s is None
    assert outlook_of(status(node("a", 0.0, 10)), 64).eta_s is None
