"""Every class of options, cut anywhere and moved again and again, against the undisturbed run."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from shunt.checkpoint.generation import Generation, Resumption
from shunt.checkpoint.request import Request
from shunt.run.audit import compare
from workers.testing.moves import cut, move, naive_resume
from workers.testing.option_cases import CASES, PROMPTS

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(1200),  # the first test's covers the engine's start and all generations
]

LOGPROB_TOLERANCE = 1e-3
"""fp32 on CPU: a prefill over tokens that were decoded moves logprobs by some 1e-5."""

NAIVE_MUST_DIFFER = frozenset(
    {
        "temperature",
        "top_p",
        "penalties, sampled",
        "presence_penalty",
        "stop",
        "json",
        "json, sampled",
        "regex",
        "grammar",
        "prompt_logprobs",
        "second of two choices",
    }
)
"""Classes where joining saved tokens to the prompt is seen to be wrong, for one prompt and cut."""


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def undisturbed(
    engine: Any, new_request: Callable[..., Request]
) -> dict[tuple[str, int], tuple[Request, Generation]]:
    """Every case with every prompt of the default matrix, never interrupted."""
    return await run_undisturbed(engine, new_request, [0])


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def resumed(
    engine: Any, undisturbed: Any, tokenizer: Any
) -> dict[tuple[str, int], Generation]:
    """Every case from each of its cuts: all at once, as a batch of many costs little more than of
    few."""
    wanted = {
        (name, point): replace(request, request_id=f"{name}@{point}", saved=cut(whole, point))
        for (name, _), (request, whole) in undisturbed.items()
        for point in cut_points(name, whole, tokenizer)
    }
    generations = await asyncio.gather(*map(engine.generate, wanted.values()))
    return dict(zip(wanted, generations, strict=True))


async def run_undisturbed(
    engine: Any, new_request: Callable[..., Request], prompts: Sequence[int]
) -> dict[tuple[str, int], tuple[Request, Generation]]:
    greedy = await asyncio.gather(
        *(engine.generate(new_request(PROMPTS[p], CASES["greedy"](p, ""))) for p in prompts)
    )
    texts = {p: g.finish.text for p, g in zip(prompts, greedy, strict=True)}
    requests = {
        (name, p): new_request(PROMPTS[p], case(p, texts[p]))
        for name, case in CASES.items()
        for p in prompts
    }
    generations = await asyncio.gather(*(engine.generate(r) for r in requests.values()))
    return {
        name: (request, generation)
        for (name, request), generation in zip(requests.items(), generations, strict=True)
    }


def cut_points(name: str, generation: Generation, tokenizer: Any) -> list[int]:
    """First token, middle, last but one; and the places that only some outputs have."""
    ids = generation.token_ids
    length = len(ids)
    points = {1, length // 2, length - 1}
    if name.startswith("stop"):
        points |= {length - 2, length - 3}
    if name.startswith("characters"):
        points |= set(_inside_characters(ids, tokenizer)[:6])
    if name.startswith("json"):
        points |= set(_inside_number(ids, tokenizer)[:2])
    return sorted(point for point in points if 0 < point < length)


def _inside_characters(ids: tuple[int, ...], tokenizer: Any) -> list[int]:
    return [n for n in range(1, len(ids)) if tokenizer.decode(ids[:n]).endswith("\ufffd")]


def _inside_number(ids: tuple[int, ...], tokenizer: Any) -> list[int]:
    texts = [tokenizer.decode([token_id]) for token_id in ids]
    return [n for n in range(1, len(ids)) if texts[n - 1].isdigit() and texts[n].isdigit()]


@pytest.mark.parametrize("name", CASES)
async def test_resumed_generation_is_the_undisturbed_one(
    name: str, undisturbed: Any, resumed: Any, tokenizer: Any
) -> None:
    """Tokens, text, finish, logprobs and usage are equal from every cut."""
    _, expected = undisturbed[name, 0]
    points = cut_points(name, expected, tokenizer)
    assert points, "the undisturbed run is too short to be cut"
    for point in points:
        generation = resumed[name, point]
        comparison = compare(expected, generation)
        assert comparison.exact(LOGPROB_TOLERANCE), f"cut at {point}: {comparison}"
        assert generation.resumption is Resumption.STATE_EXACT
        assert generation.num_resumes == 1


async def test_five_moves_change_nothing(engine: Any, undisturbed: Any) -> None:
    """Every class at once: peeked while it runs, cancelled, resumed, five times over.

    A peek of a busy machine may come when a generation has ended; such a one is moved again.
    """
    most = dict.fromkeys((name for name, _ in undisturbed), 0)
    for attempt in range(3):
        names = [name for name, num_moves in most.items() if num_moves < 5]
        moved = await asyncio.gather(
            *(_move_five_times(engine, *undisturbed[name, 0], attempt=attempt) for name in names)
        )
        differing = [
            name
            for name, (generation, _) in zip(names, moved, strict=True)
            if not compare(undisturbed[name, 0][1], generation).exact(LOGPROB_TOLERANCE)
        ]
        assert not differing
        assert all(generation.num_resumes == num_moves for generation, num_moves in moved)
        for name, (_, num_moves) in zip(names, moved, strict=True):
            most[name] = max(most[name], num_moves)
    assert sum(most.values()) > 4 * len(most)


async def _move_five_times(
    engine: Any, request: Request, expected: Generation, *, attempt: int = 0
) -> tuple[Generation, int]:
    length = len(expected.token_ids)
    positions = [max(1, length * part // 6) for part in range(1, 6)]
    named = replace(request, request_id=f"{request.request_id}*5.{attempt}")
    return await move([engine], named, positions)


async def test_the_naive_way_fails(engine: Any, undisturbed: Any) -> None:
    """The comparison can fail: prompt plus saved tokens is another generation in most classes."""
    middles = {}
    for (name, _), (_, expected) in undisturbed.items():
        length = len(expected.token_ids)
        middles[name] = cut(expected, length - 1 if name.startswith("stop") else length // 2)
    naive = await asyncio.gather(
        *(naive_resume(engine, undisturbed[name, 0][0], saved) for name, saved in middles.items())
    )
    differing = set()
    for name, generation in zip(middles, naive, strict=True):
        expected = undisturbed[name, 0][1]
        assert expected.finish is not None
        assert generation.finish is not None
        comparison = compare(expected, generation)
        same_end = expected.finish.finish_reason == generation.finish.finish_reason
        if not comparison.same_tokens or not same_end or comparison.max_logprob_gap > 1e-3:
            differing.add(name)
    assert differing >= NAIVE_MUST_DIFFER


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_more_prompts_and_every_fourth_cut(
    engine: Any, new_request: Callable[..., Request]
) -> None:
    runs = await run_undisturbed(engine, new_request, [1, 2])
    for (name, prompt), (request, expected) in runs.items():
        points = range(1, len(expected.token_ids), 4)
        resumed = await asyncio.gather(
            *(
                engine.generate(
                    replace(request, request_id=f"{name}{prompt}@{n}", saved=cut(expected, n))
                )
                for n in points
            )
        )
        for point, generation in zip(points, resumed, strict=True):
            comparison = compare(expected, generation)
            assert comparison.exact(LOGPROB_TOLERANCE), f"{name}, {prompt}, {point}: {comparison}"
