"""What is wanted of a plan, and which plans are allowed."""

from dataclasses import dataclass
from enum import StrEnum

from placement.errors import BadInput


class Kind(StrEnum):
    THROUGHPUT = "throughput"
    """Most requests/s from the offerings as they are."""
    BUDGET = "budget"
    """Most requests/s for at most so many USD per hour."""
    COST = "cost"
    """Fewest USD to finish all prompts by the deadline."""
    VALUE = "value"
    """Most prompts per USD, however long it takes."""


@dataclass(frozen=True, slots=True)
class Objective:
    kind: Kind
    deadline_s: float | None = None
    usd_per_hour: float | None = None
    confidence: float | None = None
    """How sure the deadline is to be kept; None: 0.9 where the pool allows it, else 0.5."""

    def __post_init__(self) -> None:
        if self.deadline_s is not None and self.kind is not Kind.COST:
            raise BadInput(f"objective {self.kind}: deadline_hours goes with cost only")
        if self.usd_per_hour is not None and self.kind is not Kind.BUDGET:
            raise BadInput(f"objective {self.kind}: usd_per_hour goes with budget only")
        if self.confidence is not None:
            if self.kind is not Kind.COST:
                raise BadInput(f"objective {self.kind}: confidence goes with cost only")
            if not 0.5 <= self.confidence < 1:
                raise BadInput("objective: confidence lies in 0.5 to below 1")
        if self.kind is Kind.COST and not (self.deadline_s and self.deadline_s > 0):
            raise BadInput("objective cost: give a deadline above zero")
        if self.kind is Kind.BUDGET and not (self.usd_per_hour and self.usd_per_hour > 0):
            raise BadInput("objective budget: give usd_per_hour above zero")


@dataclass(frozen=True, slots=True)
class Constraints:
    """Limits on pipelines and purchases."""

    max_stages: int = 8
    uniform_tp: bool = False
    """One TP degree per pipeline: what stock vLLM runs without our executor."""
    whole_nodes: bool = False
    """All GPUs of a node in the same pipeline."""
    min_replicas: int = 1
    max_nodes: int | None = None
    max_sequences: int = 1024
    allowed_tp: tuple[int, ...] | None = None
    spread: bool = True
    """With two pipelines or more, no supply group may hold a piece of every one of them."""

    def __post_init__(self) -> None:
        if self.max_stages < 1 or self.min_replicas < 1 or self.max_sequences < 1:
            raise BadInput("constraints: max_stages, min_replicas and max_sequences start at 1")


@dataclass(frozen=True, slots=True)
class RiskAversion:
    """`weight` of the worst `tail` share of scenarios against the mean."""

    weight: float = 0.5
    tail: float = 0.2

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1 or not 0 < self.tail <= 1:
            raise BadInput("risk: weight lies in 0 to 1, tail above 0 and at most 1")
