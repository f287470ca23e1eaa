"""What is decided about a request before it goes to the engine: refused, restarted, or resumed.

An engine must not be ended by a row: whatever vLLM lets through its own validation and then trips
over in the engine core or in a worker is caught here.
"""

from collections.abc import Collection
from dataclasses import dataclass

from shunt.checkpoint.request import Request
from shunt.dataset.row_error import RowErrorCode
from shunt.job.sampling import Sampling


@dataclass(frozen=True, slots=True)
class EngineTraits:
    """What the decisions depend on."""

    runner: str
    """Model runner: `v1` or `v2`."""
    device: str
    """`cpu`, `cuda`..."""
    max_model_len: int
    cannot_resume: str = ""
    """Why this engine restarts every moved row; empty when it resumes them."""
    max_allowed_token_ids: int | None = None
    max_logit_bias: int | None = None
    max_stop_token_ids: int | None = None
    """Limits above which the worker raises (runner V2); None: no limit."""
    no_grammars: str = ""
    """Why the engine's structured-output backend would end the engine core; empty when it works."""


OTHER_PROMPT = "the prompt has other tokens than when it was begun"
"""Another chat template, tokenizer or clock than the worker before had."""


def refusal(
    request: Request, traits: EngineTraits, adapters: Collection[str]
) -> tuple[RowErrorCode, str] | None:
    """Why the engine can never run this request, or None."""
    num_prompt_tokens = len(request.prompt_token_ids)
    if num_prompt_tokens == 0:
        return RowErrorCode.EMPTY_PROMPT, "the prompt has no token"
    if num_prompt_tokens >= traits.max_model_len:
        return (
            RowErrorCode.CONTEXT_LENGTH,
            f"the prompt has {num_prompt_tokens} tokens; the engine's context of "
            f"{traits.max_model_len} leaves no room for an answer",
        )
    if traits.no_grammars and request.sampling.structured_outputs is not None:
        return RowErrorCode.INVALID_PARAMETER, traits.no_grammars
    if traits.cannot_resume and traits.runner == "v1" and request.sampling.logprob_token_ids:
        return (
            RowErrorCode.INVALID_PARAMETER,
            "logprob_token_ids: without a hook, model runner v1 would take the logprobs of other "
            "rows away",
        )
    adapter = request.sampling.adapter
    if adapter is not None and adapter not in adapters:
        return (
            RowErrorCode.INVALID_PARAMETER,
            f"adapter {adapter!r} is not among the job's: {sorted(adapters)}",
        )
    for name, size, limit in _sizes(request.sampling, traits):
        if limit is not None and size > limit:
            return (
                RowErrorCode.INVALID_PARAMETER,
                f"{name} has {size} entries; model runner {traits.runner} takes {limit} at most",
            )
    return None


def reason_to_restart(request: Request, traits: EngineTraits) -> str | None:
    """Why the saved tokens of `request` cannot be continued from here, or None."""
    saved, sampling = request.saved, request.sampling
    assert saved is not None
    if request.has_other_prompt:
        return OTHER_PROMPT
    if traits.cannot_resume:
        return traits.cannot_resume
    if sampling.thinking_token_budget is not None:
        return "thinking_token_budget: its count is not rebuilt"
    if sampling.temperature > 0 and sampling.seed is None:
        return "sampled without a seed"
    if sampling.temperature > 0 and traits.runner == "v1" and traits.device != "cpu":
        return f"model runner v1 on {traits.device}: its random state cannot be carried"
    if _wants_logprobs(sampling) and len(saved.logprobs or ()) != len(saved.token_ids):
        return "tokens were saved without their logprobs"
    if sampling.prompt_logprobs is not None and saved.prompt_logprobs is None:
        return "tokens were saved without the prompt's logprobs"
    if len(request.prompt_token_ids) + len(saved.token_ids) > traits.max_model_len:
        return f"more tokens are saved than this engine's context of {traits.max_model_len} holds"
    return None


def _wants_logprobs(sampling: Sampling) -> bool:
    return sampling.logprobs is not None or bool(sampling.logprob_token_ids)


def _sizes(sampling: Sampling, traits: EngineTraits) -> list[tuple[str, int, int | None]]:
    return [
        (
            "allowed_token_ids",
            len(sampling.allowed_token_ids or ()),
            traits.max_allowed_token_ids,
        ),
        ("logit_bias", len(sampling.logit_bias or ()), traits.max_logit_bias),
        ("stop_token_ids", len(sampling.stop_token_ids or ()), traits.max_stop_token_ids),
    ]
