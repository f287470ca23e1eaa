"""Plans that keep a deadline: with start-up and drain, and as surely as was asked for."""

import math
from collections.abc import Callable
from dataclasses import replace
from statistics import NormalDist

from placement.answer.plan_builder import Answer
from placement.errors import Infeasible
from placement.question.question import Question

_ROUNDS = 8
_SURE, _EVEN = 0.9, 0.5


def on_time(question: Question, plan: Callable[[Question], Answer]) -> Answer:
    """The cheapest plan whose last row comes in time. Raises `Infeasible`.

    Where no confidence is stated it is P90, and P50 with a note where the pool has no plan of P90.
    """
    stated = question.objective.confidence
    if stated is not None:
        return _kept(question, stated, plan)
    try:
        return _kept(question, _SURE, plan)
    except Infeasible:
        found = _kept(question, _EVEN, plan)
    return _noted(found, "deadline: kept at even odds (P50) only; no plan of this pool is P90 sure")


def _kept(question: Question, confidence: float, plan: Callable[[Question], Answer]) -> Answer:
    """Ask for a nearer deadline until the forecast of what comes back keeps the one given.

    The search knows prompts / throughput alone: what the drain adds and what the estimator's error
    may add is only known of a plan.
    """
    deadline_s = question.objective.deadline_s
    assert deadline_s is not None
    spread = question.constants.engine(question.engine).spread
    factor = math.exp(NormalDist().inv_cdf(confidence) * spread)
    near_s = question.startup_s + (deadline_s - question.startup_s) / factor
    ends_s = deadline_s
    told = f"deadline of {deadline_s / 3600:.2f} h at {confidence:.0%} confidence"
    for _ in range(_ROUNDS):
        try:
            nearer = replace(question.objective, deadline_s=max(near_s, 1e-3))
            found = plan(replace(question, objective=nearer))
        except Infeasible as error:
            raise Infeasible(f"{told}, drain counted: {error}", error.advice) from error
        work_s = found.forecast.duration_s.p50 - question.startup_s
        ends_s = question.startup_s + work_s * factor
        if ends_s <= deadline_s * (1 + 1e-9):
            note = (
                f"deadline: {confidence:.0%} sure to end by {ends_s / 3600:.2f} h of "
                f"{deadline_s / 3600:.2f} h, start-up and drain counted"
            )
            return _noted(replace(found, question=question), note)
        near_s -= 1.02 * (ends_s - deadline_s) / factor
    raise Infeasible(
        f"{told}: the drain of the last prompts does not fit",
        (f"a deadline of at least {1.1 * ends_s / 3600:.2f} h", "fewer max_sequences"),
    )


def _noted(answer: Answer, note: str) -> Answer:
    plan = answer.plan.model_copy(update={"notes": (*answer.plan.notes, note)})
    return replace(answer, plan=plan)
