"""What an interruption costs, by hand."""

import pytest

from placement.estimate.goodput import goodput_share, lost_s_per_interruption
from placement.question.interruption import InterruptionCost
from placement.question.workload import LengthPair, workload_of


def test_lost_seconds_by_hand() -> None:
    """Replace 200 s, always with notice: 120 s of them are still worked, 80 s are lost. 10
    sequences of 100 in and 100 out are prefilled again at a mean of 150 of 100 tokens: 10 x 1 s x
    1.5 = 15 s."""
    work = workload_of([LengthPair(100, 100)], num_prompts=1)
    cost = InterruptionCost(replace_s=200.0, flush_interval_s=10.0, noticed_share=1.0)
    lost = lost_s_per_interruption(cost, work, concurrency=10, prefill_s=1.0)
    assert lost == pytest.approx(95.0)


def test_goodput_by_hand() -> None:
    """One interruption an hour that costs 400 s: 3600 of 4000 s are worked."""
    assert goodput_share(1.0, 400.0) == pytest.approx(0.9)
