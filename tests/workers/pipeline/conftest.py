"""Where there is no vLLM, the tests that run it are skipped."""

import importlib.util
from pathlib import Path

import pytest

from tests.workers.pipeline.processes import Told
from tests.workers.pipeline.running import NUM_TOKENS
from workers.testing.moves import cut

HAS_VLLM = importlib.util.find_spec("vllm") is not None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        mine = item.path.is_relative_to(here) and item.get_closest_marker("vllm")
        if mine and not HAS_VLLM:
            item.add_marker(pytest.mark.skip(reason="vLLM is not installed here"))


@pytest.fixture(scope="session")
def one_rank(alone: Told) -> Told:
    """What the model generates without a pipeline; greedily, so the first tokens of it."""
    return Told([cut(generation, NUM_TOKENS) for generation in alone.generations], [])
