"""What pipelines are compared with."""

import pytest

from tests.workers.pipeline.processes import Told
from tests.workers.pipeline.running import NUM_TOKENS
from workers.testing.moves import cut


@pytest.fixture(scope="session")
def one_rank(alone: Told) -> Told:
    """What the model generates without a pipeline; greedily, so the first tokens of it."""
    return Told([cut(generation, NUM_TOKENS) for generation in alone.generations], [])
