"""The drill's simulation, against sums done by hand."""

import random
from pathlib import Path

import pytest

from shunt.drill.simulation import Handling, simulate
from shunt.drill.trace import Trace, read_trace
from shunt.errors import InputError
from tests.shunt.drill.settings import SETTINGS

ALWAYS = Trace((0.0,), (10,))


def test_undisturbed() -> None:
    """10 nodes make 1,000 tokens/s: 1,000 s of work after 100 s of start; 11,000 node-seconds."""
    result = simulate(SETTINGS, ALWAYS, Handling.SHUNT, rng=random.Random(0))
    assert result.finish_s == 1100
    assert result.cost_usd == pytest.approx(11_000 / 3600)
    assert result.tokens_again == result.interruptions == 0


def test_on_demand_takes_no_notice_of_the_trace() -> None:
    none = Trace((0.0,), (0,))
    result = simulate(SETTINGS, none, Handling.ON_DEMAND, rng=random.Random(0))
    assert result.finish_s == 1100
    assert result.cost_usd == pytest.approx(3 * 11_000 / 3600)


def test_all_nodes_taken_at_once() -> None:
    """At 600 s half is done; the nodes are back at 900 s and work from 1,000 s for 500 s."""
    gap = Trace((0.0, 600.0, 900.0), (10, 0, 10))
    result = simulate(SETTINGS, gap, Handling.SHUNT, rng=random.Random(0))
    assert result.finish_s == 1500
    assert result.interruptions == 10
    assert result.tokens_again == 0
    without = simulate(SETTINGS, gap, Handling.NONE, rng=random.Random(0))
    assert without.finish_s is not None
    assert without.tokens_again > 0
    assert without.finish_s == pytest.approx(1500 + without.tokens_again / 1000)


def test_no_capacity_ever_ends_at_the_horizon_and_costs_nothing() -> None:
    result = simulate(SETTINGS, Trace((0.0,), (0,)), Handling.SHUNT, rng=random.Random(0))
    assert (result.finish_s, result.cost_usd) == (None, 0.0)


def test_a_trace_file(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("instance_type,t_s,active_instances\na,0,3\nb,0,9\na,10,1\n")
    trace = read_trace(path, pool="a")
    assert [trace.available(t) for t in (-1, 0, 9.9, 10, 1e9)] == [0, 3, 3, 1, 1]
    assert trace.next_change_s(0) == 10
    path.write_text("x,y\n1,2\n")
    with pytest.raises(InputError, match="t_s and active_instances"):
        read_trace(path)
