"""The fake engine's promises, which the durability tests lean on."""

import asyncio
from dataclasses import replace

import pytest

from shunt.checkpoint.generation import Generation
from shunt.checkpoint.request import Request
from shunt.errors import EngineDied, RequestRefused
from shunt.job.sampling import Sampling
from workers.engine.fake import END_TOKEN_ID, FakeEngine, FakeFaults, expected_generation


def _request(number: int = 0, **fields: object) -> Request:
    sampling = Sampling.model_validate({"max_tokens": 30} | fields)
    return Request(f"{number}.0", (1, 2, number), sampling)


def _content(generation: Generation) -> tuple[object, ...]:
    return generation.token_ids, generation.logprobs, generation.finish


async def test_generates_what_it_is_expected_to() -> None:
    engine = FakeEngine()
    requests = [_request(n, logprobs=2) for n in range(50)]
    generations = await asyncio.gather(*(engine.generate(request) for request in requests))
    for request, generation in zip(requests, generations, strict=True):
        assert _content(generation) == _content(expected_generation(request))


async def test_continues_saved_tokens_at_every_cut() -> None:
    request = _request(3, logprobs=1)
    whole = expected_generation(request)
    for cut in range(1, len(whole.token_ids) + 1):
        assert whole.logprobs is not None
        saved = replace(
            whole, token_ids=whole.token_ids[:cut], logprobs=whole.logprobs[:cut], finish=None
        )
        generation = await FakeEngine().generate(replace(request, saved=saved))
        assert _content(generation) == _content(whole)


async def test_generates_no_saved_token_again() -> None:
    request = _request(3, ignore_eos=True)
    saved = replace(
        expected_generation(request), token_ids=expected_generation(request).token_ids[:20]
    )
    engine = FakeEngine()
    await engine.generate(replace(request, saved=replace(saved, finish=None)))
    assert engine.num_generated == 10


def test_seed_decides_only_where_it_is_sampled() -> None:
    greedy = [expected_generation(_request(seed=s)).token_ids for s in (1, 2)]
    sampled = [expected_generation(_request(seed=s, temperature=1.0)).token_ids for s in (1, 2)]
    assert greedy[0] == greedy[1]
    assert sampled[0] != sampled[1]


def test_end_token_is_respected() -> None:
    ends = [expected_generation(_request(n, max_tokens=500)) for n in range(20)]
    assert any(generation.token_ids[-1] == END_TOKEN_ID for generation in ends)
    kept = expected_generation(_request(0, max_tokens=500, ignore_eos=True))
    assert len(kept.token_ids) == 500


async def test_progress_survives_death() -> None:
    engine = FakeEngine(faults=FakeFaults(dies_after_tokens=35))
    requests = [_request(n, ignore_eos=True) for n in range(3)]
    results = await asyncio.gather(
        *(engine.generate(request) for request in requests), return_exceptions=True
    )
    assert all(isinstance(result, EngineDied) for result in results)
    progress = engine.progress()
    assert sum(len(generation.token_ids) for generation in progress.values()) == 35
    with pytest.raises(EngineDied):
        await engine.generate(requests[0])


async def test_a_deadly_prompt_kills_and_a_refused_one_does_not() -> None:
    deadly, refused = _request(1), _request(2)
    faults = FakeFaults(
        deadly_prompts=frozenset({deadly.prompt_token_ids}),
        refused_prompts=frozenset({refused.prompt_token_ids}),
    )
    engine = FakeEngine(faults=faults)
    with pytest.raises(RequestRefused):
        await engine.generate(refused)
    with pytest.raises(EngineDied):
        await engine.generate(deadly)
