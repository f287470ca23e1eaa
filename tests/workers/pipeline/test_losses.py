"""Every process of a pipeline, killed and stopped in turn; random ones, over and over."""

import os
import random
import signal
from typing import Any

import pytest

from tests.workers.pipeline.holding import (
    GONE_S,
    assert_nothing_kept,
    assert_nothing_left,
    holding,
    strike,
)
from tests.workers.pipeline.processes import Told, assert_same, play, run

pytestmark = [pytest.mark.vllm, pytest.mark.soak, pytest.mark.timeout(14_400)]

NOTICE_LIMIT_S = {signal.SIGKILL: 2.0, signal.SIGSTOP: 10.0}
BUSY_MACHINE = 3.0
"""Factor on both, for a machine that also runs everything else."""
NUM_KILLS = int(os.environ.get("SHUNT_SOAK_KILLS", "50"))
SEED = int(os.environ.get("SHUNT_SOAK_SEED", "0"))
NUM_LAUNCHES = int(os.environ.get("SHUNT_SOAK_LAUNCHES", "20"))

TWO_SLOTS = {
    "tp": [2, 1],
    "layers": [4, 2],
    "nodes": [0, 1],
    "addresses": {"n-0": "127.0.0.1", "n-1": "127.0.0.1"},
}
"""Head and follower on this machine, linked as two hosts would be."""
VICTIMS = (
    "worker",
    "core",
    "head janitor",
    "head rank 0",
    "head rank 1",
    "follower 1",
    "follower 1 janitor",
    "follower 1 rank 0",
)


@pytest.mark.parametrize("number", NOTICE_LIMIT_S)
@pytest.mark.parametrize("victim", VICTIMS)
def test_a_lost_process_ends_both_slots(model: str, victim: str, number: signal.Signals) -> None:
    with holding(TWO_SLOTS | {"model": model}) as held:
        seconds = strike(held, victim, number)
        assert_nothing_left(held)
    assert seconds < NOTICE_LIMIT_S[number] * BUSY_MACHINE


def test_random_kills_never_hang(model: str) -> None:
    rng = random.Random(SEED)
    for count in range(NUM_KILLS):
        with holding(TWO_SLOTS | {"model": model}) as held:
            victim = rng.choice(sorted(held.pids))
            number = rng.choice(list(NOTICE_LIMIT_S))
            seconds = strike(held, victim, number)
            assert_nothing_left(held)
        told = f"kill {count}: {victim} {number.name}"
        assert seconds < NOTICE_LIMIT_S[number] * BUSY_MACHINE, told


def test_two_pipelines_side_by_side_do_not_meet(model: str, one_rank: Told) -> None:
    """One ends in order, then the other is broken; neither has touched the other."""
    spec = TWO_SLOTS | {"model": model}
    with holding(spec | {"number": 1}) as held:
        assert_same(one_rank, _run_both(spec))
        assert held.head.poll() is None
        assert strike(held, "head rank 1", signal.SIGKILL) < (
            NOTICE_LIMIT_S[signal.SIGKILL] * BUSY_MACHINE
        )
        assert_nothing_left(held)


def test_launches_in_a_row_leave_nothing(model: str, one_rank: Told) -> None:
    spec = TWO_SLOTS | {"model": model}
    for _ in range(NUM_LAUNCHES):
        assert_same(one_rank, _run_both(spec))
        assert_nothing_kept()


def _run_both(spec: dict[str, Any]) -> Told:
    follower = play("follow", spec | {"node": 1})
    told = run(spec)
    follower.end(GONE_S)
    return told
