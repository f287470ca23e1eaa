"""What an interruption costs: the prefill of what was in flight is part of it."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from placement.catalogue.offering import Offering, group_offerings
from placement.question.question import Question
from placement.search.solver import build_model


def test_more_in_flight_costs_more_of_each_interruption(
    ask: Callable[..., Question], offer: Callable[..., Offering]
) -> None:
    question = ask([offer("g6.xlarge", 8)])
    groups = tuple(
        replace(group, interruptions_per_hour=1.0) for group in group_offerings(question.offerings)
    )
    model = build_model(question, groups)
    counts = np.array([[4] + [0] * (len(model.units) - 1)])
    few, many = (
        float(replace(model, max_sequences=number).value_factor(counts)[0]) for number in (1, 256)
    )
    assert 0 < many < few < 1
