"""What is saved of a generation: enough to continue it anywhere, and nothing more."""

from dataclasses import dataclass, replace
from enum import StrEnum

from shunt.dataset.row_error import RowError


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Logprobs at one output position: the sampled token first, then the best by rank.

    `token_ids` and `logprobs` have equal length k + 1; `rank` is the sampled token's, from 1.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    rank: int


class Resumption(StrEnum):
    """How a generation got past an interruption."""

    NONE = "none"
    """It was never moved."""
    STATE_EXACT = "state-exact"
    """Moved with its complete sampling state; numerics of the engines may differ."""
    BIT_EXACT = "bit-exact"
    """Moved between batch-invariant engines with equal numerics fingerprints."""
    RESTARTED = "restarted"
    """Begun again from its prompt; `resume_reason` says why."""


@dataclass(frozen=True, slots=True)
class Finish:
    """The end of a generation, as the engine told it."""

    finish_reason: str
    """`stop`, `length`, `repetition` (repetition_detection) or `error`."""
    stop_reason: int | str | None
    """Stop token id or stop string, where one of these ended it."""
    text: str
    """Detokenised output, cut at the stop string as vLLM cuts it."""
    error: RowError | None = None
    message: str = ""
    """Where calls of tools were to be read: JSON of `content` and of `calls`, each with `name` and
    `arguments`. Empty: none were, or the text could not be parsed."""


@dataclass(frozen=True, slots=True)
class Generation:
    """One choice of one prompt so far. Immutable; `progress` grows it from segments."""

    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprobs, ...] | None = None
    """One entry per token where the prompt asked for logprobs."""
    prompt_logprobs: tuple[TokenLogprobs | None, ...] | None = None
    """Per prompt token (None for the first), where asked for; saved once."""
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    """Prompt tokens served from the prefix cache when it was first admitted."""
    num_resumes: int = 0
    resumption: Resumption = Resumption.NONE
    resume_reason: str = ""
    fingerprint: str = ""
    """Numerics fingerprint of the engine that made the tokens; `mixed` after unequal ones."""
    prompt_digest: str = ""
    """Of the prompt's token ids (`request.digest_of`); saved once. Empty: not known."""
    finish: Finish | None = None


def tail(generation: Generation, base: int) -> Generation:
    """The part of the generation from token `base` on, as a segment carries it."""
    logprobs = generation.logprobs
    return replace(
        generation,
        token_ids=generation.token_ids[base:],
        logprobs=None if logprobs is None else logprobs[base:],
        prompt_logprobs=generation.prompt_logprobs if base == 0 else None,
        prompt_digest=generation.prompt_digest if base == 0 else "",
    )
