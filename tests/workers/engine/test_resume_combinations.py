"""Combinations of options that nobody wrote down, drawn by hypothesis."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from shunt.checkpoint.request import Request
from shunt.job.sampling import Sampling, StructuredOutput
from shunt.run.audit import compare
from workers.testing.moves import cut, move
from workers.testing.option_cases import GRAMMAR, JSON_SCHEMA, PROMPTS, REGEX

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="session")]

_UNCHECKED = (HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large)

BATCH = 12
"""Requests of one example, generated together."""

_structures = st.sampled_from(
    [
        StructuredOutput.model_validate(kind)
        for kind in ({"json": JSON_SCHEMA}, {"regex": REGEX}, {"grammar": GRAMMAR})
    ]
)
_options = st.fixed_dictionaries(
    {"max_tokens": st.integers(8, 40)},
    optional={
        "temperature": st.sampled_from([0.0, 0.7, 1.0, 2.0]),
        "top_p": st.sampled_from([0.5, 0.95]),
        "top_k": st.sampled_from([5, 50]),
        "min_p": st.sampled_from([0.02, 0.1]),
        "presence_penalty": st.sampled_from([-1.0, 0.5, 2.0]),
        "frequency_penalty": st.sampled_from([-0.5, 1.0]),
        "repetition_penalty": st.sampled_from([0.9, 1.2]),
        "min_tokens": st.integers(0, 8),
        "stop": st.lists(st.sampled_from(["the", ". ", "a", "\n", "ing", '"']), max_size=3),
        "include_stop_str_in_output": st.booleans(),
        "ignore_eos": st.booleans(),
        "logprobs": st.integers(0, 5),
        "prompt_logprobs": st.integers(0, 2),
        "bad_words": st.just(["the", "and the"]),
        "logit_bias": st.just({260: 2.0, 28: -2.0}),
        "skip_special_tokens": st.booleans(),
        "structured_outputs": _structures,
    },
)
_requests = st.lists(
    st.tuples(st.integers(0, 2), _options, st.floats(0.05, 0.95)), min_size=BATCH, max_size=BATCH
)


async def _differing(engine: Any, new_request: Callable[..., Request], drawn: Any) -> list[str]:
    requests = [
        new_request(PROMPTS[prompt], Sampling.model_validate({"seed": number} | options))
        for number, (prompt, options, _) in enumerate(drawn)
    ]
    expected = await asyncio.gather(*map(engine.generate, requests))
    cuts = [
        max(1, int(len(generation.token_ids) * part))
        for generation, (_, _, part) in zip(expected, drawn, strict=True)
    ]
    once = await asyncio.gather(
        *(
            engine.generate(replace(request, saved=cut(generation, point)))
            for request, generation, point in zip(requests, expected, cuts, strict=True)
        )
    )
    twice = await asyncio.gather(
        *(
            move([engine], replace(request, saved=cut(generation, 1)), [point + 1])
            for request, generation, point in zip(requests, expected, cuts, strict=True)
        )
    )
    return [
        f"cut at {point} of {request.sampling!r}: {comparison}"
        for request, whole, point, *moved in zip(
            requests, expected, cuts, once, (generation for generation, _ in twice), strict=True
        )
        for comparison in (compare(whole, generation) for generation in moved)
        if not comparison.exact(1e-3)
    ]


@settings(
    max_examples=2,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=_UNCHECKED,
)
@given(drawn=_requests)
async def test_drawn_combinations(
    engine: Any, new_request: Callable[..., Request], drawn: Any
) -> None:
    """One move and two, of every drawn combination."""
    assert await _differing(engine, new_request, drawn) == []


@pytest.mark.soak
@pytest.mark.timeout(3600)
@settings(
    max_examples=40,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=_UNCHECKED,
)
@given(drawn=_requests)
async def test_many_drawn_combinations(
    engine: Any, new_request: Callable[..., Request], drawn: Any
) -> None:
    assert await _differing(engine, new_request, drawn) == []
