"""A row must not end the engine: each known way to do so is tried on a real one."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from shunt.checkpoint.generation import Generation, Resumption
from shunt.checkpoint.request import Request
from shunt.dataset.row_error import RowErrorCode
from shunt.errors import RequestAborted, RequestRefused
from shunt.job.sampling import StructuredOutput
from shunt.run.audit import compare
from workers.engine.rerun import rerun
from workers.testing.moves import cut

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="session")]

STORY = "Tell me about the sea in many words."


async def test_prefix_cache_hit_inside_saved_output(
    engine: Any, new_request: Callable[..., Request]
) -> None:
    """A resumed row may find blocks of its own saved output cached, beyond its prompt."""
    request = new_request(STORY, max_tokens=64, ignore_eos=True)
    expected = await engine.generate(request)
    again = await asyncio.gather(
        *(
            engine.generate(replace(request, request_id=f"hit{n}", saved=cut(expected, n)))
            for n in (40, 50, 63)
        )
    )
    assert all(compare(expected, generation).exact(1e-3) for generation in again)


async def test_rows_keep_their_logprobs_beside_rows_that_name_tokens(
    engine: Any, new_request: Callable[..., Request]
) -> None:
    """Runner V1 answers a whole batch with the named tokens of one row in it; see sampler_repair.

    Rows of different numbers of logprobs and names, alone and together.
    """
    asked = [
        {"logprobs": 5},
        {"logprob_token_ids": [28, 30, 253]},
        {"logprobs": 1},
        {"logprob_token_ids": [28]},
        {"logprobs": 0},
        {"logprob_token_ids": [28, 30, 253, 260, 198, 338, 1, 2]},
        {},
    ]
    requests = [new_request(STORY, max_tokens=6, ignore_eos=True, **fields) for fields in asked]
    alone = [await engine.generate(request) for request in requests]
    together = await asyncio.gather(
        *(engine.generate(replace(r, request_id=f"{r.request_id}-again")) for r in requests)
    )
    for one, other in zip(alone, together, strict=True):
        assert compare(one, other).exact(1e-3)
        for row, again in zip(one.logprobs or (), other.logprobs or (), strict=True):
            assert row.logprobs == pytest.approx(again.logprobs, abs=1e-3)


async def test_seeded_rows_in_prefill_chunks(
    engine: Any, new_request: Callable[..., Request], tokenizer: Any
) -> None:
    """Runner V1 on CPU fails over a prefill chunk of a seeded row: its generator cannot go back.

    More prompt tokens at once than one step takes, so that some prompts are split.
    """
    ids = tokenizer.encode("Once upon a time there was a small boat. " * 60)[:400]
    prompts = [[*ids, 100 + number] for number in range(3)]
    sampled = {"temperature": 1.0, "max_tokens": 12, "ignore_eos": True}
    alone = [
        await engine.generate(new_request(p, seed=n, **sampled)) for n, p in enumerate(prompts)
    ]
    # The last token of the prompt before it is another: nothing is cached of these.
    shifted = [[number + 7, *prompt[:-1]] for number, prompt in enumerate(prompts)]
    together = await asyncio.gather(
        *(engine.generate(new_request(p, seed=n, **sampled)) for n, p in enumerate(shifted))
    )
    apart = [
        await engine.generate(new_request(p, seed=n, **sampled)) for n, p in enumerate(shifted)
    ]
    assert [g.token_ids for g in together] == [g.token_ids for g in apart]
    resumed = await asyncio.gather(
        *(
            engine.generate(replace(new_request(p, seed=n, **sampled), saved=cut(alone[n], 6)))
            for n, p in enumerate(prompts)
        )
    )
    assert [g.token_ids for g in resumed] == [g.token_ids for g in alone]


async def test_prompt_longer_than_the_context(
    engine: Any, new_request: Callable[..., Request]
) -> None:
    with pytest.raises(RequestRefused) as refused:
        await engine.generate(new_request(list(range(100, 612)), max_tokens=4))
    assert refused.value.code == RowErrorCode.CONTEXT_LENGTH


async def test_saved_tokens_up_to_the_context(
    engine: Any, new_request: Callable[..., Request]
) -> None:
    """A generation that filled the context is finished here; one that exceeds it is restarted."""
    request = new_request(list(range(300, 770)), max_tokens=600, ignore_eos=True)
    room = 512 - len(request.prompt_token_ids)
    full = await engine.generate(replace(request, sampling=request.sampling))
    assert (len(full.token_ids), full.finish.finish_reason) == (room, "length")
    lost_finish = await engine.generate(replace(request, saved=cut(full, room)))
    assert lost_finish.finish == full.finish
    beyond = replace(cut(full, room), token_ids=(*full.token_ids, 30))
    restarted = await engine.generate(replace(request, saved=beyond))
    assert restarted.resumption is Resumption.RESTARTED
    assert "context" in restarted.resume_reason
    assert restarted.token_ids == full.token_ids


@pytest.mark.parametrize(
    "fields",
    [
        {"max_tokens": 12},
        {"max_tokens": 200},
        {"max_tokens": 80, "stop": ["sea"]},
        {"max_tokens": 80, "stop": ["sea"], "include_stop_str_in_output": True},
        {"max_tokens": 80, "stop_token_ids": [30, 28, 253]},
    ],
    ids=["length", "end token", "stop string", "stop string included", "stop token"],
)
async def test_saved_tokens_that_already_end_the_request(
    fields: dict[str, Any], engine: Any, new_request: Callable[..., Request]
) -> None:
    """The finish was lost with the worker, its last token was not: no engine step is needed."""
    request = new_request("What is the colour of the sea? Answer in one sentence.", **fields)
    expected = await engine.generate(request)
    saved = cut(expected, len(expected.token_ids))
    finished = await engine.generate(replace(request, saved=saved))
    assert finished.finish == expected.finish
    assert finished.token_ids == expected.token_ids
    assert finished.resumption is Resumption.STATE_EXACT


async def test_grammar_that_refuses_the_saved_tokens(
    engine: Any, new_request: Callable[..., Request]
) -> None:
    """The row is restarted and says so; the engine goes on."""
    structure = StructuredOutput.model_validate({"regex": "[0-9]{20}"})
    request = new_request(STORY, max_tokens=30, structured_outputs=structure)
    expected = await engine.generate(request)
    wrong = replace(cut(expected, 3), token_ids=(253, 260, 28))
    restarted = await engine.generate(replace(request, saved=wrong))
    assert restarted.resumption is Resumption.RESTARTED
    assert "grammar" in restarted.resume_reason
    assert (restarted.token_ids, restarted.finish) == (expected.token_ids, expected.finish)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"allowed_token_ids": [10**7]}, RowErrorCode.ENGINE_REFUSED),
        ({"logit_bias": {10**7: 1.0}}, RowErrorCode.ENGINE_REFUSED),
        ({"logprobs": 10**4}, RowErrorCode.ENGINE_REFUSED),
        ({"adapter": "nobody"}, RowErrorCode.INVALID_PARAMETER),
        ({"thinking_token_budget": 5}, RowErrorCode.ENGINE_REFUSED),
        (
            {"structured_outputs": StructuredOutput.model_validate({"regex": "(["})},
            RowErrorCode.ENGINE_REFUSED,
        ),
    ],
    ids=["allowed", "bias", "logprobs", "adapter", "thinking", "regex"],
)
async def test_refused_with_a_code(
    fields: dict[str, Any], code: RowErrorCode, engine: Any, new_request: Callable[..., Request]
) -> None:
    with pytest.raises(RequestRefused) as refused:
        await engine.generate(new_request(STORY, max_tokens=4, **fields))
    assert refused.value.code == code
    alive = await engine.generate(new_request(STORY, max_tokens=2))
    assert len(alive.token_ids) == 2


async def test_empty_prompt(engine: Any, new_request: Callable[..., Request]) -> None:
    with pytest.raises(RequestRefused) as refused:
        await engine.generate(new_request([], max_tokens=4))
    assert refused.value.code == RowErrorCode.EMPTY_PROMPT


async def test_tokens_saved_without_what_was_asked_for(
    engine: Any, new_request: Callable[..., Request]
) -> None:
    """Logprobs that were never saved cannot be invented: restarted, and it says so."""
    request = new_request(STORY, max_tokens=10, logprobs=2, prompt_logprobs=1)
    expected = await engine.generate(request)
    no_logprobs = replace(cut(expected, 5), logprobs=None)
    no_prompt_logprobs = replace(cut(expected, 5), prompt_logprobs=None)
    for saved in (no_logprobs, no_prompt_logprobs):
        generation = await engine.generate(replace(request, saved=saved))
        assert generation.resumption is Resumption.RESTARTED
        assert "logprobs" in generation.resume_reason
        assert compare(expected, generation).exact(1e-3)


async def test_audit_reruns_a_resumed_row(engine: Any, new_request: Callable[..., Request]) -> None:
    request = new_request(STORY, max_tokens=24, temperature=1.0, seed=5)
    finished = await engine.generate(request)
    resumed = await engine.generate(replace(request, saved=cut(finished, 9)))
    assert (await rerun(engine, request, resumed)).exact(0.0)
    flipped = replace(resumed, token_ids=(*resumed.token_ids[:11], 999, *resumed.token_ids[12:]))
    comparison = await rerun(engine, request, flipped)
    assert comparison.first_difference == 11


async def test_a_request_that_the_engine_drops_is_no_death_of_the_engine(
    engine: Any, new_request: Callable[..., Request]
) -> None:
    """It would cost every row that runs: the engine would be ended and started again."""
    other = asyncio.create_task(engine.generate(new_request(STORY, max_tokens=40, ignore_eos=True)))
    dropped = replace(new_request(STORY, max_tokens=400, ignore_eos=True), request_id="dropped")
    task = asyncio.create_task(engine.generate(dropped))
    while not engine.progress().get("dropped", Generation()).token_ids:
        await asyncio.sleep(0.01)
    await engine._llm.abort("dropped")
    with pytest.raises(RequestAborted, match="the engine aborted request dropped"):
        await task
    assert len((await other).token_ids) == 40
    saved = engine.progress().get("dropped")
    assert saved is not None
    assert saved.token_ids
    again = await engine.generate(replace(dropped, request_id="again", saved=saved))
    assert again.token_ids[: len(saved.token_ids)] == saved.token_ids
