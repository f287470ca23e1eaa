"""A plan from an offering sheet that keeps within the quotas of the account."""

from collections.abc import Callable
from dataclasses import replace

from placement.answer.plan_builder import Answer, answer
from placement.question.question import Question
from placement.question.sheet_offerings import within_quotas
from shunt.plan.offering_sheet import OfferingSheet


def sheet_answer(
    question: Question, sheet: OfferingSheet, *, plan: Callable[[Question], Answer] = answer
) -> Answer:
    """The best plan; where its nodes together exceed a quota, the best within a share of it.

    The second plan is the best of its own offerings, and not proven the best within the quota: a
    note says so. Raises `Infeasible`.
    """
    found = plan(question)
    offerings, told = within_quotas(sheet, question.offerings, found.plan.nodes)
    if not told:
        return found
    capped = plan(replace(question, offerings=offerings))
    note = f"{'; '.join(told)}: planned again within it, best of the shares of that plan"
    notes = (*capped.plan.notes, note)
    return replace(capped, plan=capped.plan.model_copy(update={"notes": notes}))
