"""Traces: those that are shipped, the user's own, and the same for a fleet of another size."""

from pathlib import Path

import pytest

from shunt.drill.trace import Trace, find_trace, read_trace, shipped_traces
from shunt.errors import InputError


@pytest.mark.parametrize("name", list(shipped_traces()))
def test_every_shipped_trace_begins_with_a_node_and_says_where_it_is_from(name: str) -> None:
    told = shipped_traces()[name]
    trace = read_trace(told.path)
    assert told.span_s >= trace.at_s[-1]
    assert trace.at_s[0] == 0
    assert trace.available(0) > 0
    assert len(trace.at_s) > 5
    assert all(told.source and told.licence and told.instance_type for told in (told,))
    # Only changes are kept.
    assert all(a != b for a, b in zip(trace.nodes, trace.nodes[1:], strict=False))


def test_no_file_is_shipped_that_the_index_does_not_name() -> None:
    folder = next(iter(shipped_traces().values())).path.parent
    assert {p.stem for p in folder.glob("*.csv")} == set(shipped_traces())


def test_a_shipped_recording_says_what_its_source_says() -> None:
    """Bamboo's of 2020-11-23: four nodes, and at most twelve of the cluster's twelve."""
    trace = read_trace(shipped_traces()["g4dn-us-east-1d-11-23"].path)
    assert (trace.peak, len(trace.at_s)) == (12, 33)
    assert find_trace("g5-xlarge-us-west-2a-03-18").available(1200) == 0


def test_a_shipped_trace_begins_again_after_its_span() -> None:
    span_s = shipped_traces()["g5-xlarge-us-west-2a-03-18"].span_s
    trace = find_trace("g5-xlarge-us-west-2a-03-18")
    for number in (0, 1, 20):
        assert trace.available(number * span_s + 1199) == 20
        assert trace.available(number * span_s + 1200) == 0
    assert trace.next_change_s(20 * span_s + 1) == 20 * span_s + 1200
    assert list(trace.at_s) == sorted(trace.at_s)


def test_ones_own_file_and_a_name_that_is_neither(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("t_s,active_instances\n0,2\n")
    assert find_trace(str(tmp_path / "own.csv")).peak == 2
    with pytest.raises(InputError, match="none of those shipped: g4dn-us-east-1c"):
        find_trace("nonsense")


def test_scaled_to_another_fleet() -> None:
    """Half of 12 is 6; an odd node rounds up; none stays none."""
    trace = Trace((0.0, 1.0, 2.0, 3.0), (12, 1, 7, 0))
    assert trace.scaled(6).nodes == (6, 1, 4, 0)
    assert trace.scaled(12) == trace
    assert trace.scaled(1200).nodes == (1200, 100, 700, 0)
    assert Trace((0.0,), (0,)).scaled(5).nodes == (0,)


@pytest.mark.parametrize("text", ["0,-1\n", "5,1\n0,1\n", "0,many\n", "0,inf\n", ""])
def test_what_is_no_trace_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.csv").write_text("t_s,active_instances\n" + text)
    with pytest.raises(InputError, match=r"t\.csv"):
        read_trace(tmp_path / "t.csv")
