"""Engines that the default tests do not start: LoRA adapters, other structured-output backends."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from shunt.checkpoint.generation import Resumption
from shunt.checkpoint.request import Request
from shunt.errors import RequestRefused
from shunt.job.sampling import Sampling
from shunt.run.audit import compare
from workers.engine.config import EngineConfig
from workers.testing.moves import cut
from workers.testing.option_cases import CASES, PROMPTS

pytestmark = [pytest.mark.soak, pytest.mark.vllm, pytest.mark.asyncio(loop_scope="session")]

RANK = 8
LAYERS = 30
HIDDEN = 576
VALUES = 192
STRUCTURED = ("json", "json, sampled", "json_object", "regex", "choice")


def _write_adapter(folder: Path) -> Path:
    """A random adapter of the queries and values, strong enough to change every answer."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(1)
    tensors = {}
    for layer in range(LAYERS):
        for name, width in (("q_proj", HIDDEN), ("v_proj", VALUES)):
            stem = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            tensors[f"{stem}.lora_A.weight"] = torch.randn(RANK, HIDDEN, generator=generator) * 0.05
            tensors[f"{stem}.lora_B.weight"] = torch.randn(width, RANK, generator=generator) * 0.05
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "r": RANK,
        "lora_alpha": RANK,
        "target_modules": ["q_proj", "v_proj"],
        "bias": "none",
        "task_type": "CAUSAL_LM",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=["guidance", "outlines"])
async def other_engine(
    request: pytest.FixtureRequest,
    engine_config: Callable[..., EngineConfig],
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncGenerator[Any]:
    from workers.engine.vllm_engine import VllmEngine

    adapter = _write_adapter(tmp_path_factory.mktemp("adapters") / "poet")
    started = await VllmEngine.start(
        engine_config(
            adapters={"poet": str(adapter)},
            extra={"structured_outputs_config": {"backend": request.param}},
        )
    )
    yield started
    await started.stop()


async def test_the_adapter_moves_with_its_row(
    other_engine: Any, new_request: Callable[..., Request]
) -> None:
    sampled = {"temperature": 1.0, "seed": 4, "max_tokens": 24, "ignore_eos": True}
    bare = await other_engine.generate(new_request(PROMPTS[0], Sampling(**sampled)))
    request = new_request(PROMPTS[0], Sampling(**sampled, adapter="poet"))
    expected = await other_engine.generate(request)
    assert expected.token_ids != bare.token_ids
    for point in (1, 12, 23):
        saved = replace(request, request_id=f"lora@{point}", saved=cut(expected, point))
        assert compare(expected, await other_engine.generate(saved)).exact(1e-3)


@pytest.mark.parametrize("name", STRUCTURED)
async def test_grammars_of_another_backend(
    name: str,
    other_engine: Any,
    new_request: Callable[..., Request],
    request: pytest.FixtureRequest,
) -> None:
    if name == "json_object" and "outlines" in request.node.name:
        pytest.skip("outlines has no json_object: vLLM refuses the row")
    row = new_request(PROMPTS[0], CASES[name](0, ""))
    expected = await other_engine.generate(row)
    length = len(expected.token_ids)
    points = sorted({1, length // 2, length - 1})
    resumed = await asyncio.gather(
        *(
            other_engine.generate(replace(row, request_id=f"{name}@{n}", saved=cut(expected, n)))
            for n in points
        )
    )
    assert all(compare(expected, generation).exact(1e-3) for generation in resumed)
    assert {generation.resumption for generation in resumed} == {Resumption.STATE_EXACT}


async def test_a_backend_that_cannot_be_loaded_refuses_the_row_and_lives(
    engine_config: Callable[..., EngineConfig], new_request: Callable[..., Request]
) -> None:
    from workers.engine.vllm_engine import VllmEngine

    config = {"backend": "lm-format-enforcer"}
    engine = await VllmEngine.start(engine_config(extra={"structured_outputs_config": config}))
    try:
        with pytest.raises(RequestRefused, match="lm-format-enforcer does not work"):
            await engine.generate(new_request(PROMPTS[0], CASES["regex"](0, "")))
        assert (await engine.generate(new_request(PROMPTS[0], Sampling(max_tokens=2)))).finish
    finally:
        await engine.stop()


async def test_without_the_hooks_rows_are_restarted(
    engine_config: Callable[..., EngineConfig],
    new_request: Callable[..., Request],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What another vLLM gets: the same rows, begun again, and the reason in each."""
    from workers.engine import engine_start
    from workers.engine.vllm_engine import VllmEngine

    reason = "vLLM is 0.33.0, not 0.32.0"
    monkeypatch.setattr(engine_start, "load_private", lambda: (None, reason))
    bare = await VllmEngine.start(engine_config())
    try:
        sampling = Sampling(max_tokens=16, temperature=1.0, seed=2, logprobs=1, prompt_logprobs=1)
        request = new_request(PROMPTS[0], sampling)
        expected = await bare.generate(request)
        assert len(expected.logprobs or ()) == len(expected.token_ids)
        restarted = await bare.generate(replace(request, saved=cut(expected, 7)))
        assert restarted.resume_reason == reason
        assert compare(expected, restarted).exact(1e-3)
        assert bare.progress() == {}
    finally:
        await bare.stop()
