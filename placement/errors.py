"""What can be wrong with a question to the planner.

PlacementError (a ShuntError)
|- BadInput            the question itself is wrong: unknown GPU, negative price, no prompts
|- Infeasible          the question is sound and has no answer; `advice` says what would help
"""

from shunt.errors import ShuntError


class PlacementError(ShuntError):
    """Base of what the planner raises on purpose."""


class BadInput(PlacementError):
    """The question was wrong; the text names the field and what to write instead."""


class Infeasible(PlacementError):
    """No plan meets the question; `advice` lists changes that would make one possible."""

    def __init__(self, message: str, advice: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.advice = advice
