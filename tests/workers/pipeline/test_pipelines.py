"""Unequal pipelines on real vLLM: the same tokens as one rank, and nothing left of a killed one."""

import os
import signal
from typing import Any

import pytest

from tests.workers.pipeline.holding import (
    assert_nothing_kept,
    assert_nothing_left,
    holding,
    replaced_by,
    strike,
)
from tests.workers.pipeline.processes import Told, assert_same, run

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

NOTICE_LIMIT_S = 2.0
STOPPED_LIMIT_S = 10.0
BUSY_MACHINE = 3.0
"""Factor on both, for a machine that also runs everything else."""
FULL_SHARE = 0.8
"""Of the batches that start when every stage has one; the others fill and empty the pipeline."""


@pytest.mark.parametrize(
    ("victim", "number", "limit_s"),
    [
        ("head rank 1", signal.SIGKILL, NOTICE_LIMIT_S),
        pytest.param("core", signal.SIGKILL, NOTICE_LIMIT_S, marks=pytest.mark.soak),
        pytest.param("worker", signal.SIGKILL, NOTICE_LIMIT_S, marks=pytest.mark.soak),
        pytest.param("head janitor", signal.SIGKILL, NOTICE_LIMIT_S, marks=pytest.mark.soak),
        pytest.param("head rank 2", signal.SIGSTOP, STOPPED_LIMIT_S, marks=pytest.mark.soak),
        pytest.param("core", signal.SIGSTOP, STOPPED_LIMIT_S, marks=pytest.mark.soak),
        pytest.param("worker", signal.SIGSTOP, STOPPED_LIMIT_S, marks=pytest.mark.soak),
        pytest.param("head janitor", signal.SIGSTOP, STOPPED_LIMIT_S, marks=pytest.mark.soak),
    ],
)
def test_unequal_stages_give_the_tokens_of_one_rank_and_a_lost_process_leaves_nothing(
    model: str, one_rank: Told, victim: str, number: signal.Signals, limit_s: float
) -> None:
    spec = {"model": model, "tp": [2, 1], "layers": [4, 2], "nodes": [0, 0]}
    with holding(spec) as held:
        assert_same(one_rank, held.told)
        assert_full(held.told, num_stages=2)
        assert strike(held, victim, number) < limit_s * BUSY_MACHINE
        assert_nothing_left(held)


@pytest.mark.soak
@pytest.mark.parametrize(
    ("tp", "layers"), [([1, 2], [4, 2]), ([1, 4, 1], [1, 3, 2]), ([1, 1], [4, 2])]
)
def test_other_stages_give_the_tokens_of_one_rank(
    model: str, one_rank: Told, tp: list[int], layers: list[int]
) -> None:
    told = run({"model": model, "tp": tp, "layers": layers, "nodes": [0] * len(tp)})
    assert_same(one_rank, told)
    if told.batch_starts:
        assert_full(told, num_stages=len(tp))
    assert_nothing_kept()


def assert_full(told: Told, *, num_stages: int) -> None:
    """Every stage had a batch. With chunks of 32 tokens prefill and decoding share batches."""
    assert len(told.batch_starts) == num_stages + 1
    assert told.batch_starts[-1] > FULL_SHARE * sum(told.batch_starts)


VLLMS_OWN = {"tp": [1, 1], "layers": [4, 2], "nodes": [0, 0]}
"""One host, one TP degree: no executor of ours."""


@pytest.mark.soak
@pytest.mark.parametrize(
    ("victim", "number", "limit_s"),
    [
        ("head rank 0", signal.SIGKILL, NOTICE_LIMIT_S),
        ("worker", signal.SIGKILL, NOTICE_LIMIT_S),
        ("core", signal.SIGKILL, NOTICE_LIMIT_S),
        ("head rank 1", signal.SIGSTOP, STOPPED_LIMIT_S),
        ("core", signal.SIGSTOP, STOPPED_LIMIT_S),
    ],
)
def test_vllms_own_executor_notices_a_loss_as_soon(
    model: str, victim: str, number: signal.Signals, limit_s: float
) -> None:
    with holding(VLLMS_OWN | {"model": model}) as held:
        assert strike(held, victim, number) < limit_s * BUSY_MACHINE
        assert_nothing_left(held)


@pytest.mark.soak
@pytest.mark.parametrize("stages", [VLLMS_OWN, VLLMS_OWN | {"tp": [2, 1]}])
def test_all_killed_at_once_leave_nothing(model: str, stages: dict[str, Any]) -> None:
    with holding(stages | {"model": model}) as held:
        for name, pid in held.pids.items():
            if "janitor" not in name:
                os.kill(pid, signal.SIGKILL)
        assert_nothing_left(held)


@pytest.mark.soak
def test_a_killed_janitor_of_vllms_own_executor_is_replaced(model: str) -> None:
    with holding(VLLMS_OWN | {"model": model}) as held:
        killed = held.pids.pop("head janitor")
        os.kill(killed, signal.SIGKILL)
        replaced_by(held, "head janitor", killed)
        os.killpg(held.pids["core"], signal.SIGKILL)
        held.head.kill()
        assert_nothing_left(held)
