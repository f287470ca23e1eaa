"""A planning question: everything that a plan depends on."""

from dataclasses import dataclass
from pathlib import Path

from placement.catalogue.constants import Constants
from placement.catalogue.model_shape import ModelShape
from placement.catalogue.offering import Offering
from placement.question.interruption import InterruptionCost
from placement.question.objective import Constraints, Objective, RiskAversion
from placement.question.workload import Workload

# A certificate of 2 % is far inside the estimator's own error; closing it further buys nothing.
DEFAULT_GAP = 0.02
_NO_CONSTRAINTS = Constraints()
_USUAL_INTERRUPTION = InterruptionCost()
_USUAL_RISK = RiskAversion()


@dataclass(frozen=True, slots=True)
class Question:
    """Everything that a plan depends on."""

    shape: ModelShape
    workload: Workload
    offerings: tuple[Offering, ...]
    objective: Objective
    constants: Constants
    engine: str
    constraints: Constraints = _NO_CONSTRAINTS
    interruption: InterruptionCost = _USUAL_INTERRUPTION
    startup_s: float = 200.0
    """From launch to the first token: ShuntServe measured 194 s for a first start."""
    gap: float = DEFAULT_GAP
    scenarios_file: Path | None = None
    """Recorded availability: the plan is then chosen for its mean and its worst windows."""
    risk: RiskAversion = _USUAL_RISK
