"""Small questions that are quick to answer."""

from collections.abc import Callable, Sequence

import pytest

from placement.catalogue.constants import Constants, load_constants
from placement.catalogue.hardware import Catalogue, load_catalogue
from placement.catalogue.known_model import known_shape
from placement.catalogue.offering import Offering, make_offering
from placement.question.objective import Constraints, Kind, Objective
from placement.question.question import Question
from placement.question.workload import LengthPair, workload_of


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    return load_catalogue()


@pytest.fixture(scope="session")
def constants() -> Constants:
    return load_constants()


@pytest.fixture(scope="session")
def offer() -> Callable[..., Offering]:
    return _offering


@pytest.fixture(scope="session")
def ask() -> Callable[..., Question]:
    return _question


def _offering(
    name: str,
    count: int,
    price: float | None = None,
    *,
    market: str = "on-demand",
    zone: str = "a",
    rate: float | None = None,
) -> Offering:
    """An offering of the shipped catalogue."""
    return make_offering(
        load_catalogue(),
        instance_type=name,
        market=market,
        zone=zone,
        usd_per_hour=price,
        max_nodes=count,
        interruptions_per_hour=rate,
        default_spot_rate=0.05,
    )


def _question(
    offerings: Sequence[Offering],
    *,
    model: str = "Qwen3-8B",
    objective: Objective | None = None,
    constraints: Constraints | None = None,
    num_prompts: int = 10_000,
    prompt: float = 763,
    output: float = 232,
    gap: float = 1e-3,
) -> Question:
    """A question with everything else as usual."""
    return Question(
        shape=known_shape(model),
        workload=workload_of(
            [LengthPair(prompt, output)], num_prompts=num_prompts, max_context=2048
        ),
        offerings=tuple(offerings),
        objective=objective or Objective(Kind.THROUGHPUT),
        constants=load_constants(),
        engine="vllm",
        constraints=constraints or Constraints(max_stages=4, max_sequences=256),
        gap=gap,
    )
