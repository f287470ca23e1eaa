"""What becomes of every field of vLLM's SamplingParams when a generation is moved.

One table; docs/resume.md shows it, and a test fails when the pinned vLLM has a field that is not
in it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Handling(StrEnum):
    """The four fates of an option."""

    CARRIED = "carried"
    """Offered; a moved generation goes on exactly as if it had not been moved."""
    CONDITIONAL = "conditional"
    """Offered; carried or restarted depending on the engine. The row says which, and why."""
    SET = "set"
    """Not offered: shunt or the engine itself sets it."""
    REFUSED = "refused"
    """Not offered: a job or a row that sets it is refused by name."""


@dataclass(frozen=True, slots=True)
class Option:
    """The fate of one field and the sentence for the documentation."""

    handling: Handling
    how: str


_CARRIED = Handling.CARRIED
_CONDITIONAL = Handling.CONDITIONAL
_SET = Handling.SET
_REFUSED = Handling.REFUSED

_STATELESS = "no state: applied to each position by itself"
_COUNTS = "counts are rebuilt over the output tokens, which saved tokens are again"
_LIMIT = "compared with the number of output tokens, saved ones included"

OPTIONS: Mapping[str, Option] = {
    "n": Option(_SET, "always 1: choices are fanned out before the engine, with seed + choice"),
    "presence_penalty": Option(_CARRIED, _COUNTS),
    "frequency_penalty": Option(_CARRIED, _COUNTS),
    "repetition_penalty": Option(_CARRIED, _COUNTS + "; prompt tokens count as before"),
    "temperature": Option(_CARRIED, _STATELESS),
    "watermarking": Option(_REFUSED, "an engine with a watermark is not offered"),
    "top_p": Option(_CARRIED, _STATELESS),
    "top_k": Option(_CARRIED, _STATELESS),
    "min_p": Option(_CARRIED, _STATELESS),
    "seed": Option(
        _CONDITIONAL,
        "runner V2 keys its noise by seed and position; runner V1 on CPU is moved forward by one "
        "draw per saved token; on other V1 devices the row is restarted with the same seed",
    ),
    "stop": Option(
        _CARRIED, "saved tokens pass through the detokeniser again, so matches span the seam"
    ),
    "stop_token_ids": Option(_CARRIED, _STATELESS),
    "ignore_eos": Option(_CARRIED, _STATELESS),
    "max_tokens": Option(_CARRIED, _LIMIT),
    "min_tokens": Option(_CARRIED, _LIMIT),
    "logprobs": Option(_CARRIED, "saved with the tokens and put back in front"),
    "prompt_logprobs": Option(
        _CONDITIONAL,
        "saved once, with the first token, and put back; not computed again. Tokens saved "
        "without them restart the row",
    ),
    "prompt_logprob_token_ids": Option(_REFUSED, "a scoring option of the V2 runner alone"),
    "prompt_logprob_start": Option(_REFUSED, "belongs to prompt_logprob_token_ids"),
    "logprob_token_ids": Option(_CARRIED, "as logprobs"),
    "flat_logprobs": Option(_SET, "always on: the same values, cheaper to hold and to read"),
    "detokenize": Option(_SET, "always on: the text of a row is the engine's own"),
    "skip_special_tokens": Option(_CARRIED, "the detokeniser sees the saved tokens again"),
    "spaces_between_special_tokens": Option(_CARRIED, "as skip_special_tokens"),
    "include_stop_str_in_output": Option(_CARRIED, "as stop"),
    "output_kind": Option(_SET, "FINAL_ONLY: tokens are read from the front end, not streamed"),
    "stream_interval": Option(_SET, "nothing is streamed"),
    "skip_clone": Option(_SET, "an internal flag of vLLM"),
    "output_text_buffer_length": Option(_SET, "derived from stop by vLLM"),
    "_eos_token_id": Option(_SET, "the tokenizer's, by vLLM"),
    "_all_stop_token_ids": Option(_SET, "derived by vLLM"),
    "_watermarking_skipped": Option(_SET, "an internal flag of vLLM"),
    "structured_outputs": Option(
        _CONDITIONAL,
        "the grammar is advanced over the saved tokens, through the reasoning gate where there is "
        "one; a grammar that refuses them restarts the row",
    ),
    "logit_bias": Option(_CARRIED, _STATELESS),
    "allowed_token_ids": Option(_CARRIED, _STATELESS),
    "extra_args": Option(_REFUSED, "carries the saved tokens; custom processors are not offered"),
    "bad_words": Option(_CARRIED, "matched against the output tokens, saved ones included"),
    "_bad_words_token_ids": Option(_SET, "derived by vLLM"),
    "skip_reading_prefix_cache": Option(_SET, "derived from prompt_logprobs by vLLM"),
    "thinking_token_budget": Option(
        _CONDITIONAL, "the count of thinking tokens is not rebuilt: the row is restarted"
    ),
    "repetition_detection": Option(
        _CARRIED, "a function of the output tokens, saved ones included"
    ),
    "routed_experts_prompt_start": Option(_REFUSED, "routing data is not returned"),
    "trace_decode_token_ids": Option(_REFUSED, "a debugging option: forces given tokens"),
}
"""Every field of `vllm.SamplingParams` 0.32.0."""

LORA = Option(_CARRIED, "the adapter's name is saved with the request and applied again")
REASONING = Option(_CARRIED, "is a gate before the grammar: see structured_outputs")
MULTIMODAL = Option(_REFUSED, "a request holds token ids only; messages with images are refused")
SPECULATIVE = Option(
    _CARRIED, "state-exact: the boundary between accepted drafts differs after a move"
)
