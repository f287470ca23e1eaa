"""The matrix on a GPU, where model runner V2 and asynchronous scheduling are the default.

Needs one NVIDIA GPU and the CUDA build of vLLM; some minutes.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from shunt.checkpoint.generation import Resumption
from shunt.checkpoint.request import Request
from shunt.run.audit import compare
from workers.engine.config import EngineConfig
from workers.testing.moves import cut
from workers.testing.option_cases import CASES, PROMPTS

pytestmark = [pytest.mark.gpu, pytest.mark.vllm, pytest.mark.asyncio(loop_scope="session")]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gpu_engine(engine_config: Callable[..., EngineConfig]) -> AsyncGenerator[Any]:
    from workers.engine.vllm_engine import VllmEngine

    started = await VllmEngine.start(engine_config(enforce_eager=False))
    yield started
    await started.stop()


async def test_the_runner_is_v2(gpu_engine: Any) -> None:
    assert "/v2/" in gpu_engine.fingerprint


@pytest.mark.parametrize("name", CASES)
async def test_resumed_on_a_gpu(
    name: str, gpu_engine: Any, new_request: Callable[..., Request]
) -> None:
    """fp32: tokens, finish and usage are equal; a row that says restarted fails here."""
    greedy = await gpu_engine.generate(new_request(PROMPTS[0], CASES["greedy"](0, "")))
    request = new_request(PROMPTS[0], CASES[name](0, greedy.finish.text))
    expected = await gpu_engine.generate(request)
    length = len(expected.token_ids)
    resumed = await asyncio.gather(
        *(
            gpu_engine.generate(replace(request, request_id=f"{name}@{n}", saved=cut(expected, n)))
            for n in sorted({1, length // 2, length - 1} - {0, length})
        )
    )
    for generation in resumed:
        assert compare(expected, generation).exact(1e-2)
        assert generation.resumption in (Resumption.STATE_EXACT, Resumption.BIT_EXACT)
