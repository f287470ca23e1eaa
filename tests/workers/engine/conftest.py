"""One real engine for the whole session; where there is no vLLM, the tests of it are skipped."""

import gc
import importlib.util
import os
import warnings
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from shunt.checkpoint.request import Request
from shunt.job.sampling import Sampling
from workers.engine.config import EngineConfig, engine_environment
from workers.warm.warm_process import WarmProcess

MODEL = Path(__file__).parents[3] / ".cache" / "models" / "SmolLM2-135M-Instruct"
HAS_VLLM = importlib.util.find_spec("vllm") is not None

if HAS_VLLM:
    os.environ.update(engine_environment(threads=1, kv_cache_gib=1))
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    with warnings.catch_warnings():
        # Importing vllm and torch warns of deprecations of their own.
        warnings.simplefilter("ignore")
        import vllm  # noqa: F401

_FOREIGN_WARNINGS = (
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)
"""What vLLM's threads and sockets emit while an engine runs and ends."""


def pytest_configure(config: pytest.Config) -> None:
    # vLLM leaves its ZeroMQ context to the garbage collector, which may come at the very end.
    config.addinivalue_line(
        "filterwarnings", "ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here) and item.get_closest_marker("vllm"):
            for text in _FOREIGN_WARNINGS:
                item.add_marker(pytest.mark.filterwarnings(text))


def small_engine(**changes: Any) -> EngineConfig:
    """The engine of most tests: fp32, so that a resumed generation is equal to the bit."""
    fields: dict[str, Any] = {
        "model_path": str(MODEL),
        "dtype": "float32",
        "max_model_len": 512,
        "max_num_seqs": 32,
        "max_num_batched_tokens": 1024,
        "enforce_eager": True,
        "tool_call_parser": "hermes",
        # Moves are made at any token: none is held in the engine core (`held_tokens`).
        "extra": {"additional_config": {"shunt_hold_steps": 1}},
    }
    changes["extra"] = {**fields["extra"], **changes.get("extra", {})}
    return EngineConfig(**(fields | changes))


@pytest.fixture(scope="session")
def engine_config() -> Callable[..., EngineConfig]:
    return small_engine


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def engine(warm: WarmProcess) -> AsyncGenerator[Any]:
    """A real engine, shared by the session."""
    from workers.engine.vllm_engine import VllmEngine

    started = await VllmEngine.start(small_engine(), warm.context(_not_cold))
    yield started
    await started.stop()
    del started
    gc.collect()


def _not_cold(reason: str) -> None:
    raise AssertionError(f"the engine was not started warm: {reason}")


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(MODEL)


@pytest.fixture(scope="session")
def new_request(tokenizer: Any) -> Callable[..., Request]:
    """Make a request of a user's message or of token ids; request ids are unique in the session."""
    numbers = iter(range(1 << 30))

    def make(prompt: str | list[int], sampling: Sampling | None = None, **fields: Any) -> Request:
        if isinstance(prompt, list):
            ids = prompt
        else:
            message = {"role": "user", "content": prompt}
            text = tokenizer.apply_chat_template(
                [message], add_generation_prompt=True, tokenize=False
            )
            ids = tokenizer.encode(text, add_special_tokens=False)
        request_id = f"{next(numbers)}.0"
        return Request(request_id, tuple(ids), sampling or Sampling(**fields))

    return make
