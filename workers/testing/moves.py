"""Moving a generation: cutting it, moving it live from engine to engine, and the naive way."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from shunt.checkpoint.generation import Finish, Generation
from shunt.checkpoint.request import Request
from shunt.job.sampling import Sampling
from workers.engine.protocol import Engine

POLL_S = 0.002


def cut(generation: Generation, num_tokens: int) -> Generation:
    """What a checkpoint would have held after `num_tokens` tokens."""
    logprobs = generation.logprobs
    return replace(
        generation,
        token_ids=generation.token_ids[:num_tokens],
        logprobs=None if logprobs is None else logprobs[:num_tokens],
        finish=None,
    )


async def move(
    engines: Sequence[Engine], request: Request, positions: Sequence[int]
) -> tuple[Generation, int]:
    """Generate `request`; at each position it is peeked, cancelled, resumed on the next engine.

    Returns the finished generation and the number of moves that came about before it finished.
    """
    saved = request.saved
    for number, position in enumerate(positions):
        engine = engines[number % len(engines)]
        attempt = replace(request, saved=saved)
        task = asyncio.create_task(engine.generate(attempt))
        saved = await _peek_at(engine, task, attempt, position)
        if saved is None:
            return await task, number
        task.cancel()
        await asyncio.wait([task])
    engine = engines[len(positions) % len(engines)]
    return await engine.generate(replace(request, saved=saved)), len(positions)


async def _peek_at(
    engine: Engine, task: "asyncio.Task[Generation]", request: Request, num_tokens: int
) -> Generation | None:
    while not task.done():
        # Of this request alone: reading all of them at every look would slow their engine.
        live = engine.progress({request.request_id: 0}).get(request.request_id)
        if live is not None and len(live.token_ids) >= num_tokens:
            return live
        await asyncio.sleep(POLL_S)
    return None


async def naive_resume(engine: Engine, request: Request, saved: Generation) -> Generation:
    """The way of other systems: saved tokens become prompt, limits shrink, texts are joined."""
    num_saved = len(saved.token_ids)
    sampling = request.sampling
    rest = Sampling.model_validate(
        sampling.model_dump(by_alias=True)
        | {
            "max_tokens": max(1, (sampling.max_tokens or 1) - num_saved),
            "min_tokens": max(0, sampling.min_tokens - num_saved),
        }
    )
    prompt = (*request.prompt_token_ids, *saved.token_ids)
    tail = await engine.generate(replace(request, prompt_token_ids=prompt, sampling=rest))
    assert tail.finish is not None
    finish = Finish(tail.finish.finish_reason, tail.finish.stop_reason, "")
    logprobs = tail.logprobs
    if logprobs is not None and saved.logprobs is not None:
        logprobs = (*saved.logprobs, *logprobs)
    return replace(
        tail,
        token_ids=(*saved.token_ids, *tail.token_ids),
        logprobs=logprobs,
        num_prompt_tokens=len(request.prompt_token_ids),
        finish=finish,
    )
