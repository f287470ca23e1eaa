"""A reasoning parser holds the grammar back while the model thinks: moved before, at and after."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from shunt.checkpoint.generation import Generation, Resumption
from shunt.checkpoint.request import Request
from shunt.job.sampling import Sampling, StructuredOutput
from shunt.run.audit import compare
from workers.engine.config import EngineConfig
from workers.testing.moves import cut, naive_resume
from workers.testing.option_cases import PROMPTS, REGEX

pytestmark = [pytest.mark.soak, pytest.mark.vllm, pytest.mark.asyncio(loop_scope="session")]

THINK, THINK_END = "<repo_name>", "<reponame>"
"""Tokens that the small model never uses, renamed to those of a reasoning model."""
SEEDS = range(6)


def _thinking_model(source: Path, folder: Path) -> tuple[Path, int]:
    """The small model with a tokenizer that knows `<think>`; and the id of `</think>`."""
    folder.mkdir()
    for path in source.iterdir():
        if path.suffix == ".safetensors":
            (folder / path.name).symlink_to(path)
        else:
            text = path.read_text().replace(THINK, "<think>").replace(THINK_END, "</think>")
            (folder / path.name).write_text(text)
    tokens = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    return folder, next(token["id"] for token in tokens if token["content"] == "</think>")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def thinker(
    engine_config: Callable[..., EngineConfig], tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[tuple[Any, int]]:
    from workers.engine.vllm_engine import VllmEngine

    config = engine_config(extra={"reasoning_parser": "deepseek_r1"})
    model, end = _thinking_model(Path(config.model_path), tmp_path_factory.mktemp("m") / "thinker")
    started = await VllmEngine.start(replace(config, model_path=str(model)))
    yield started, end
    await started.stop()


async def test_the_gate_opens_where_it_would_have(
    thinker: tuple[Any, int], new_request: Callable[..., Request]
) -> None:
    engine, end = thinker
    requests = [
        new_request(
            PROMPTS[0],
            Sampling(
                max_tokens=64,
                temperature=1.0,
                seed=seed,
                logit_bias={end: 9.0},
                structured_outputs=StructuredOutput(regex=REGEX),
            ),
        )
        for seed in SEEDS
    ]
    whole = await asyncio.gather(*(engine.generate(request) for request in requests))
    thought = [(r, g) for r, g in zip(requests, whole, strict=True) if _gate(g, end) > 1]
    assert len(thought) >= 2, [_gate(g, end) for g in whole]
    naive_differs = 0
    for request, expected in thought:
        gate = _gate(expected, end)
        for point in sorted({1, gate, gate + 1, gate + 5, len(expected.token_ids) - 1}):
            moved = replace(request, request_id=f"moved-{request.sampling.seed}-{point}")
            resumed = await engine.generate(replace(moved, saved=cut(expected, point)))
            assert compare(expected, resumed).exact(1e-3), (gate, point)
            assert resumed.resumption is Resumption.STATE_EXACT
        naive = await naive_resume(engine, request, cut(expected, gate + 5))
        naive_differs += naive.token_ids != expected.token_ids
    assert naive_differs


def _gate(generation: Generation, end: int) -> int:
    """Position of `</think>`, or -1."""
    return generation.token_ids.index(end) if end in generation.token_ids else -1
