"""A node's curve stays small and covers its whole life."""

from itertools import pairwise

from shunt.run.node_course import (
    MOST_SAMPLES,
    MOST_TURNS,
    CourseKeeper,
    NodeCourse,
    NodeState,
    Sample,
)


def test_a_long_life_has_few_samples_that_cover_it() -> None:
    keeper, course = CourseKeeper(), NodeCourse()
    for beat in range(50_000):
        course = keeper.saw(NodeState.RUNNING, Sample(2.0 * beat, beat, beat // 10, 8))
        assert course.samples[-1].at_s == 2.0 * beat
        assert len(course.samples) <= MOST_SAMPLES + 1
    assert len(course.samples) > MOST_SAMPLES // 4
    assert course.samples[0].at_s == 0.0
    gaps = [b.at_s - a.at_s for a, b in pairwise(course.samples[:-1])]
    assert max(gaps) <= 2.5 * min(gaps)
    assert len(course.model_dump_json()) < 4096


def test_turns_are_told_once_and_the_first_is_kept() -> None:
    keeper, course = CourseKeeper(), NodeCourse()
    for beat in range(3 * MOST_TURNS):
        for state in (NodeState.RUNNING, NodeState.RUNNING, NodeState.IDLE):
            course = keeper.saw(state, Sample(float(beat), 0, 0, 0))
    assert len(course.turns) == MOST_TURNS
    assert course.turns[0].at_s == 0.0
    states = [turn.state for turn in course.turns[1:]]
    assert all(a is not b for a, b in pairwise(states))
