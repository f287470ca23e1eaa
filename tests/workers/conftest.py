"""Where there is no vLLM, the tests that run it are skipped. For pipelines: a small model, and what
one rank makes of it, computed once."""

import importlib.util
from pathlib import Path

import pytest

from shunt.demo_model.tiny_llama import tiny_llama
from tests.workers.pipeline.processes import Told, run

HAS_VLLM = importlib.util.find_spec("vllm") is not None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        mine = item.path.is_relative_to(here) and item.get_closest_marker("vllm")
        if mine and not HAS_VLLM:
            item.add_marker(pytest.mark.skip(reason="vLLM is not installed here"))


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Six layers, four attention heads, two key-value heads; embedding and head of their own."""
    path = tmp_path_factory.mktemp("models") / "tiny"
    return str(tiny_llama(path, layers=6, heads=4, kv_heads=2, hidden=128, tie=False, seed=3))


@pytest.fixture(scope="session")
def alone(model: str) -> Told:
    """What the model generates without a pipeline: 160 greedy tokens of each of twelve prompts."""
    return run({"model": model, "tp": [1], "layers": [6], "nodes": [0], "max_tokens": 160})
