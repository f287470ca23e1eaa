"""A small model, and what one rank makes of it: computed once for all tests of pipelines."""

import pytest

from shunt.demo_model.tiny_llama import tiny_llama
from tests.workers.pipeline.processes import Told, run


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Six layers, four attention heads, two key-value heads; embedding and head of their own."""
    path = tmp_path_factory.mktemp("models") / "tiny"
    return str(tiny_llama(path, layers=6, heads=4, kv_heads=2, hidden=128, tie=False, seed=3))


@pytest.fixture(scope="session")
def alone(model: str) -> Told:
    """What the model generates without a pipeline: 160 greedy tokens of each of twelve prompts."""
    return run({"model": model, "tp": [1], "layers": [6], "nodes": [0], "max_tokens": 160})
