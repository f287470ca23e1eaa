"""One suite for the engine seam: the deterministic fake, and real vLLM where it is installed."""

import asyncio
import gc
import importlib.util
import os
import warnings
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from shunt.checkpoint.generation import Generation, Resumption, tail
from shunt.checkpoint.request import Request
from shunt.dataset.row_error import RowErrorCode
from shunt.errors import EngineDied, RequestRefused
from shunt.job.sampling import Sampling
from workers.engine.config import EngineConfig, engine_environment
from workers.engine.fake import FakeEngine
from workers.engine.protocol import Engine
from workers.warm.warm_process import WarmProcess

MODEL = Path(__file__).parents[2] / ".cache" / "models" / "SmolLM2-135M-Instruct"
CONTEXT_TOKENS = 256

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


async def _start_vllm(warm: WarmProcess) -> Engine:
    os.environ.update(engine_environment(threads=1, kv_cache_gib=1))
    with warnings.catch_warnings():
        # Importing vllm and torch warns of deprecations of their own.
        warnings.simplefilter("ignore")
        from workers.engine.vllm_engine import VllmEngine
    config = EngineConfig(
        str(MODEL),
        dtype="float32",
        max_model_len=CONTEXT_TOKENS,
        max_num_seqs=8,
        enforce_eager=True,
    )
    return await VllmEngine.start(config, warm.context(print))


@pytest_asyncio.fixture(
    scope="module",
    loop_scope="module",
    params=[
        "fake",
        pytest.param(
            "vllm",
            marks=[
                pytest.mark.vllm,
                pytest.mark.skipif(
                    importlib.util.find_spec("vllm") is None, reason="vLLM is not installed here"
                ),
            ],
        ),
    ],
)
async def engine(request: pytest.FixtureRequest) -> AsyncGenerator[Engine]:
    if request.param == "fake":
        started: Engine = FakeEngine(max_model_len=CONTEXT_TOKENS)
    else:
        started = await _start_vllm(request.getfixturevalue("warm"))
    yield started
    await started.stop()
    del started
    gc.collect()


def _request(name: str, *, saved: Generation | None = None, **fields: object) -> Request:
    sampling = Sampling.model_validate({"max_tokens": 16, "ignore_eos": True} | fields)
    return Request(name, tuple(range(300, 330)), sampling, saved)


async def test_generates_to_the_limit(engine: Engine) -> None:
    generation = await engine.generate(_request("0.0"))
    assert len(generation.token_ids) == 16
    assert generation.finish is not None
    assert generation.finish.finish_reason == "length"
    assert generation.finish.text
    assert generation.num_prompt_tokens == 30
    assert generation.resumption is Resumption.NONE
    assert generation.fingerprint == engine.fingerprint


async def test_a_seed_repeats(engine: Engine) -> None:
    runs = [
        await engine.generate(_request(f"{n}.0", temperature=1.0, seed=seed))
        for n, seed in enumerate((7, 7, 8))
    ]
    assert runs[0].token_ids == runs[1].token_ids
    assert runs[0].token_ids != runs[2].token_ids


async def test_saved_tokens_are_continued(engine: Engine) -> None:
    sampled = {"temperature": 1.0, "seed": 3, "logprobs": 2}
    whole = await engine.generate(_request("0.0", **sampled))
    assert whole.logprobs is not None
    saved = replace(whole, token_ids=whole.token_ids[:9], logprobs=whole.logprobs[:9], finish=None)
    resumed = await engine.generate(_request("0.0", saved=saved, **sampled))
    assert resumed.token_ids == whole.token_ids
    assert resumed.finish == whole.finish
    assert len(resumed.logprobs or ()) == 16
    assert resumed.resumption in (Resumption.STATE_EXACT, Resumption.BIT_EXACT)
    assert resumed.num_resumes == 1


async def test_a_finished_generation_is_returned_as_it_is(engine: Engine) -> None:
    whole = await engine.generate(_request("0.0"))
    assert await engine.generate(_request("0.0", saved=whole)) == whole


async def test_progress_grows_and_ends(engine: Engine) -> None:
    task = asyncio.create_task(engine.generate(_request("0.0", max_tokens=60)))
    lengths = []
    while not task.done():
        live = engine.progress().get("0.0")
        if live is not None:
            assert live.finish is None
            lengths.append(len(live.token_ids))
        await asyncio.sleep(0)
    whole = await task
    assert lengths == sorted(lengths)
    assert lengths[-1] <= len(whole.token_ids)
    assert "0.0" not in engine.progress()


async def test_progress_since_a_position_is_the_tail(engine: Engine) -> None:
    requests = [_request(f"{n}.0", max_tokens=200, logprobs=1) for n in range(2)]
    tasks = [asyncio.create_task(engine.generate(request)) for request in requests]
    while len(engine.progress().get("0.0", Generation()).token_ids) < 6:
        await asyncio.sleep(0)
    whole = engine.progress()["0.0"]
    tails = engine.progress({"0.0": 4, "9.0": 0})
    assert tails == {"0.0": tail(whole, 4)}
    assert len(tails["0.0"].logprobs or ()) == len(whole.token_ids) - 4
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_cancelling_takes_the_request_out(engine: Engine) -> None:
    task = asyncio.create_task(engine.generate(_request("0.0", max_tokens=200)))
    while len(engine.progress().get("0.0", Generation()).token_ids) < 2:
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert "0.0" not in engine.progress()
    again = await engine.generate(_request("0.0", max_tokens=2))
    assert len(again.token_ids) == 2


async def test_a_prompt_without_room_is_refused(engine: Engine) -> None:
    request = replace(_request("0.0"), prompt_token_ids=tuple(range(100, 100 + CONTEXT_TOKENS)))
    with pytest.raises(RequestRefused) as refused:
        await engine.generate(request)
    assert refused.value.code == RowErrorCode.CONTEXT_LENGTH


async def test_paused_then_stopped(engine: Engine) -> None:
    """Last of the file: no token after a pause; stop is idempotent; then the engine is dead."""
    task = asyncio.create_task(engine.generate(_request("0.0", max_tokens=200)))
    while len(engine.progress().get("0.0", Generation()).token_ids) < 2:
        await asyncio.sleep(0)
    await engine.pause()
    frozen = engine.progress()["0.0"]
    await asyncio.sleep(0.3)
    assert engine.progress()["0.0"].token_ids == frozen.token_ids
    await engine.stop()
    await engine.stop()
    with pytest.raises((EngineDied, asyncio.CancelledError)):
        await task
    assert engine.progress()["0.0"].token_ids == frozen.token_ids
    with pytest.raises(EngineDied):
        await engine.generate(_request("1.0"))
