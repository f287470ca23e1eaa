"""What being able to resume costs: throughput, the price of a move, of a peek, of a checkpoint.

Run in the worker's environment: `.venv/worker/bin/python -m benchmarks.resume_overhead`. The
reference is plain `AsyncLLM` on the same requests, alternating with the engine under test.
"""

import asyncio
import os
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.report import Row, paired_ratio, write
from shunt.checkpoint.generation import Generation, TokenLogprobs
from shunt.checkpoint.request import Request
from shunt.checkpoint.segment import Gain, SegmentHeader, encode_segment
from shunt.job.sampling import Sampling
from shunt.keys import Position
from shunt.run.audit import compare
from workers.engine.config import EngineConfig, engine_arguments, engine_environment
from workers.engine.live_request import LiveRequest
from workers.testing.moves import cut

MODEL = Path(__file__).parents[1] / ".cache" / "models" / "SmolLM2-135M-Instruct"
ROUNDS = 4
NUM_REQUESTS = 32
NUM_TOKENS = 32
PROMPT_TOKENS = 48
PEEK_INTERVAL_S = 0.5
SAVED_TOKENS = 200
MOVES = 8
PEEKED_REQUESTS = 256
PEEKED_TOKENS = 1000
PEEKED_GAIN = 100
BF16_REQUESTS = 24
BF16_TOKENS = 64


def main() -> None:
    os.environ.update(engine_environment(threads=1, kv_cache_gib=1))
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    write("resume_overhead", asyncio.run(_measure()))


async def _measure() -> list[Row]:
    # Imported once the environment is set.
    from workers.engine.vllm_engine import VllmEngine

    engine = await VllmEngine.start(_config("float32"))
    try:
        rows = [await _throughput(engine), await _price_of_a_move(engine), _price_of_a_peek(engine)]
    finally:
        await engine.stop()
    rows += [_bytes_per_token(None), _bytes_per_token(5)]
    bf16 = await VllmEngine.start(_config("bfloat16"))
    try:
        return rows + await _flips(bf16)
    finally:
        await bf16.stop()


def _config(dtype: str) -> EngineConfig:
    return EngineConfig(
        str(MODEL),
        dtype=dtype,
        max_model_len=1024,
        max_num_seqs=NUM_REQUESTS,
        enforce_eager=True,
        enable_prefix_caching=False,
    )


def _request(name: str, number: int, num_tokens: int, **fields: Any) -> Request:
    first = 200 + 64 * number
    sampling = Sampling(max_tokens=num_tokens, ignore_eos=True, **fields)
    return Request(f"{name}{number}", tuple(range(first, first + PROMPT_TOKENS)), sampling)


async def _throughput(engine: Any) -> Row:
    """Tokens per second with hooks and peeks over those of plain AsyncLLM, alternating."""
    from vllm import AsyncEngineArgs, AsyncLLMEngine
    from vllm.inputs.engine import tokens_input

    from workers.engine.params import sampling_params

    plain = await asyncio.to_thread(
        AsyncLLMEngine.from_engine_args, AsyncEngineArgs(**engine_arguments(_config("float32")))
    )
    requests = [_request("t", n, NUM_TOKENS) for n in range(NUM_REQUESTS)]

    async def plainly(request: Request) -> None:
        prompt = tokens_input(list(request.prompt_token_ids))
        async for _ in plain.generate(
            prompt, sampling_params(request.sampling), request.request_id
        ):
            pass

    async def peeked(request: Request) -> None:
        task = asyncio.create_task(engine.generate(request))
        while not (await asyncio.wait([task], timeout=PEEK_INTERVAL_S))[0]:
            engine.progress({request.request_id: 0})

    ours, theirs = [], []
    try:
        await _tokens_per_s(peeked, requests), await _tokens_per_s(plainly, requests)
        for _ in range(ROUNDS):
            ours.append(await _tokens_per_s(peeked, requests))
            theirs.append(await _tokens_per_s(plainly, requests))
    finally:
        await asyncio.to_thread(plain.shutdown, 15)
    return paired_ratio(
        "tokens/s with hooks and peeks over plain AsyncLLM", ours, theirs, at_least=0.97
    )


async def _tokens_per_s(
    generate: Callable[[Request], Awaitable[None]], requests: list[Request]
) -> float:
    start = time.perf_counter()
    await asyncio.gather(*(generate(request) for request in requests))
    return NUM_REQUESTS * NUM_TOKENS / (time.perf_counter() - start)


async def _price_of_a_move(engine: Any) -> Row:
    """Time to the first new token of a moved row over that of a new row of the same length."""
    whole = await engine.generate(_request("w", 0, SAVED_TOKENS + 1))
    moved_s, fresh_s = [], []
    for number in range(MOVES):
        moved = replace(_request("m", number, SAVED_TOKENS + 1), saved=cut(whole, SAVED_TOKENS))
        moved_s.append(await _seconds(engine.generate(moved)))
        prompt = (*moved.prompt_token_ids, *whole.token_ids[:SAVED_TOKENS])
        fresh = replace(_request("f", number, 1), prompt_token_ids=prompt)
        fresh_s.append(await _seconds(engine.generate(fresh)))
    reference = statistics.median(fresh_s)
    value = statistics.median(moved_s)
    return Row(
        f"move of {SAVED_TOKENS} saved tokens: time to its next token",
        value * 1e3,
        "ms",
        (min(moved_s) * 1e3, max(moved_s) * 1e3),
        reference * 1e3,
        "its prefill: <= 1.15 x reference",
        value <= 1.15 * reference,
    )


async def _seconds(awaitable: Awaitable[Any]) -> float:
    start = time.perf_counter()
    await awaitable
    return time.perf_counter() - start


def _price_of_a_peek(engine: Any) -> Row:
    """A flush's reading of many long rows that gained little, on the front end's kind of state."""
    request = _request("p", 0, PEEKED_TOKENS)
    fresh = Generation(fingerprint=engine.fingerprint)
    for number in range(PEEKED_REQUESTS):
        live = LiveRequest(replace(request, request_id=f"p{number}"), fresh)
        live.state = SimpleNamespace(
            detokenizer=SimpleNamespace(output_token_ids=list(range(PEEKED_TOKENS))),
            logprobs_processor=SimpleNamespace(logprobs=None, prompt_logprobs=None),
            num_cached_tokens=0,
        )
        engine._live[f"p{number}"] = live
    since = dict.fromkeys(engine._live, PEEKED_TOKENS - PEEKED_GAIN)
    times = []
    for _ in range(50):
        start = time.perf_counter()
        engine.progress(since)
        times.append(1e3 * (time.perf_counter() - start))
    engine._live.clear()
    value = statistics.median(times)
    return Row(
        f"peek at {PEEKED_REQUESTS} rows of {PEEKED_TOKENS} tokens, {PEEKED_GAIN} of them new",
        value,
        "ms",
        (min(times), max(times)),
        None,
        "< 1 ms",
        value < 1.0,
    )


def _bytes_per_token(num_logprobs: int | None) -> Row:
    """Size of a segment of 64 rows that gained 100 tokens each, per token."""
    gains = [
        Gain(
            index,
            0,
            100,
            Generation(
                token_ids=_ids(index),
                logprobs=None if num_logprobs is None else _logprobs(index, num_logprobs),
                num_prompt_tokens=PROMPT_TOKENS,
                fingerprint="vllm",
            ),
        )
        for index in range(64)
    ]
    header = SegmentHeader("run", "000000", Position(1, 0), "owner")
    size = len(encode_segment(header, gains)) / (64 * 100)
    raw = 4.0 if num_logprobs is None else 4.0 + 8 * (num_logprobs + 1) + 4
    name = "no logprobs" if num_logprobs is None else f"logprobs={num_logprobs}"
    return Row(
        f"checkpoint bytes per token, {name}",
        size,
        "bytes",
        None,
        raw,
        "<= raw ids and values",
        size <= raw,
    )


def _ids(index: int) -> tuple[int, ...]:
    return tuple((index * 7919 + position * 104729) % 49152 for position in range(100))


def _logprobs(index: int, num_logprobs: int) -> tuple[TokenLogprobs, ...]:
    return tuple(
        TokenLogprobs(
            tuple((token + k * 31) % 49152 for k in range(num_logprobs + 1)),
            tuple(-((token * (k + 3)) % 9973) / 997 for k in range(num_logprobs + 1)),
            1,
        )
        for token in _ids(index)
    )


async def _flips(engine: Any) -> list[Row]:
    """Rows whose tokens differ after one move in bf16: greedy and seeded, cut in the middle."""
    requests = [
        _request(
            "b", n, BF16_TOKENS, logprobs=5, **({"temperature": 0.8, "seed": n} if n % 2 else {})
        )
        for n in range(BF16_REQUESTS)
    ]
    alone = await asyncio.gather(*(engine.generate(request) for request in requests))
    again = await asyncio.gather(*(engine.generate(request) for request in requests))
    moved = await asyncio.gather(
        *(
            engine.generate(replace(request, saved=cut(whole, BF16_TOKENS // 2)))
            for request, whole in zip(requests, alone, strict=True)
        )
    )
    comparisons = [compare(a, b) for a, b in zip(alone, moved, strict=True)]
    unmoved = [compare(a, b) for a, b in zip(alone, again, strict=True)]
    return [
        Row(
            "bf16 rows of which a token differs after a move",
            sum(not c.same_tokens for c in comparisons) / BF16_REQUESTS,
            "share",
            None,
            sum(not c.same_tokens for c in unmoved) / BF16_REQUESTS,
        ),
        Row(
            "bf16 largest logprob gap after a move",
            max(c.max_logprob_gap for c in comparisons),
            "nats",
            None,
            max(c.max_logprob_gap for c in unmoved),
        ),
    ]


if __name__ == "__main__":
    main()
