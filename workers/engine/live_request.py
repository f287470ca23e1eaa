"""A request inside the engine, as the front end sees it: read at any time, at small cost."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from shunt.checkpoint.generation import Generation, Resumption, TokenLogprobs
from shunt.checkpoint.request import Request


@dataclass(slots=True)
class LiveRequest:
    """What is known of one request; `start` decides what it continues from."""

    request: Request
    start: Generation
    """Where the current attempt starts: the saved generation, or an empty one."""
    state: Any = None
    """vLLM's front-end state, from its registration on."""
    rows: list[TokenLogprobs] = field(default_factory=list[TokenLogprobs])
    """Logprobs converted so far: a peek converts the new ones only."""
    prompt_rows: tuple[TokenLogprobs | None, ...] | None = None


def resumed_from(saved: Generation, *, fingerprint: str, bit_exact: bool) -> Generation:
    """The generation with which a move begins: the saved tokens, and what the move made of it."""
    exact = bit_exact and fingerprint == saved.fingerprint
    resumption = Resumption.BIT_EXACT if exact else Resumption.STATE_EXACT
    return replace(
        saved,
        num_resumes=saved.num_resumes + 1,
        resumption=weakest(saved.resumption, resumption),
        fingerprint=saved.fingerprint if fingerprint == saved.fingerprint else "mixed",
    )


def restarted(saved: Generation | None, *, reason: str, fingerprint: str) -> Generation:
    """An empty generation that says why the saved tokens were dropped."""
    return Generation(
        num_resumes=saved.num_resumes + 1 if saved else 1,
        resumption=Resumption.RESTARTED,
        resume_reason=reason,
        fingerprint=fingerprint,
    )


_STRENGTH = (Resumption.RESTARTED, Resumption.STATE_EXACT, Resumption.BIT_EXACT, Resumption.NONE)


def weakest(one: Resumption, other: Resumption) -> Resumption:
    """The promise that still holds after both."""
    return min(one, other, key=_STRENGTH.index)


def rows_of(flat: Any, start: int) -> Iterator[TokenLogprobs]:
    """The rows of vLLM's `FlatLogprobs` from position `start` on."""
    spans = zip(flat.start_indices, flat.end_indices, strict=True)
    for first, last in islice(spans, start, None):
        yield TokenLogprobs(
            token_ids=tuple(flat.token_ids[first:last]),
            logprobs=tuple(flat.logprobs[first:last]),
            rank=flat.ranks[first],
        )


def generation_of_output(live: LiveRequest, output: Any) -> Generation:
    """What vLLM's public `RequestOutput` says, for an engine without the private hooks."""
    completion = output.outputs[0]
    prompt_logprobs = output.prompt_logprobs
    return replace(
        live.start,
        token_ids=tuple(completion.token_ids),
        logprobs=None if completion.logprobs is None else tuple(rows_of(completion.logprobs, 0)),
        prompt_logprobs=prompt_logprobs and (None, *rows_of(prompt_logprobs, 1)),
        num_prompt_tokens=len(live.request.prompt_token_ids),
        num_cached_tokens=output.num_cached_tokens,
    )
