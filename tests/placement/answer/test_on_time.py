"""A deadline is kept with start-up and drain, as surely as was asked for."""

from collections.abc import Callable

import pytest

from placement.answer.plan_builder import answer
from placement.catalogue.offering import Offering
from placement.errors import BadInput, Infeasible
from placement.question.objective import Kind, Objective
from placement.question.question import Question

Ask = Callable[..., Question]
Offer = Callable[..., Offering]


def test_p90_is_kept_where_the_pool_allows_it(ask: Ask, offer: Offer) -> None:
    asked = ask([offer("g6e.xlarge", 8)], objective=Objective(Kind.COST, deadline_s=3600.0))
    found = answer(asked)
    assert found.forecast.duration_s.p90 <= 3600.0
    assert any("90% sure" in note for note in found.plan.notes)


def test_even_odds_are_said_and_a_stated_confidence_is_kept_or_refused(
    ask: Ask, offer: Offer
) -> None:
    """A deadline between the median and P90 of all nodes."""
    offers = [offer("g6e.xlarge", 1)]
    median = answer(ask(offers)).forecast.duration_s
    between = (median.p50 + median.p90) / 2
    found = answer(ask(offers, objective=Objective(Kind.COST, deadline_s=between)))
    assert found.forecast.duration_s.p50 <= between < found.forecast.duration_s.p90
    assert any("even odds" in note for note in found.plan.notes)
    with pytest.raises(Infeasible, match="90% confidence"):
        answer(ask(offers, objective=Objective(Kind.COST, deadline_s=between, confidence=0.9)))


def test_limits_of_another_objective_are_refused() -> None:
    with pytest.raises(BadInput, match="deadline_hours goes with cost"):
        Objective(Kind.BUDGET, deadline_s=1.0, usd_per_hour=1.0)
    with pytest.raises(BadInput, match="usd_per_hour goes with budget"):
        Objective(Kind.VALUE, usd_per_hour=1.0)
