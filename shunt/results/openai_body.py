"""The body of an answer as OpenAI's API gives it, from a request's body and its generations."""

import codecs
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shunt.checkpoint.generation import Generation, TokenLogprobs
from shunt.dataset.openai_tools import read_calls, tool_calls
from shunt.dataset.whole_text import whole_text
from shunt.results.columns import finite
from shunt.results.outcome import Outcome

_FINISH = {"repetition": "stop"}
"""What OpenAI's types have no word for."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """How a token id is written. Without a tokenizer, by its number and without bytes."""

    text_of: Callable[[int], str] = lambda token_id: f"token_id:{token_id}"
    bytes_of: Callable[[int], bytes | None] = lambda _token_id: None


BY_NUMBER = Tokens()


def answer_body(
    request: Mapping[str, Any],
    outcome: Outcome,
    *,
    chat: bool,
    created_at: datetime,
    model: str,
    tokens: Tokens,
) -> dict[str, Any]:
    """`model` is named where the request names none."""
    first = outcome.generations[0]
    output_tokens = sum(len(generation.token_ids) for generation in outcome.generations)
    return {
        "id": f"{'chatcmpl' if chat else 'cmpl'}-{outcome.index}",
        "object": "chat.completion" if chat else "text_completion",
        "created": int(created_at.timestamp()),
        "model": request.get("model") or model,
        "choices": [
            _choice(request, outcome.index, g, index, chat=chat, tokens=tokens)
            for index, g in enumerate(outcome.generations)
        ],
        "usage": {
            "prompt_tokens": first.num_prompt_tokens,
            "completion_tokens": output_tokens,
            "total_tokens": first.num_prompt_tokens + output_tokens,
            "prompt_tokens_details": {"cached_tokens": first.num_cached_tokens},
        },
    }


def _choice(
    request: Mapping[str, Any],
    row: int,
    generation: Generation,
    index: int,
    *,
    chat: bool,
    tokens: Tokens,
) -> dict[str, Any]:
    finish = generation.finish
    assert finish is not None
    text = whole_text(finish.text)
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
    reason = _FINISH.get(finish.finish_reason, finish.finish_reason)
    choice = request.get("tool_choice") if chat and request.get("tools") else None
    if chat and finish.message:
        message |= read_calls(finish.message, f"{row}_{index}")
        reason = "tool_calls" if "tool_calls" in message else reason
    elif choice and (calls := tool_calls(choice, text, f"{row}_{index}")):
        message |= {"content": None, "tool_calls": calls}
        # As OpenAI's: a call of a named function just stops.
        reason = "tool_calls" if choice == "required" and reason == "stop" else reason
    logprobs = None
    if generation.logprobs is not None:
        make = _chat_logprobs if chat else _logprobs
        logprobs = make(generation.logprobs, tokens)
    return {
        "index": index,
        **({"message": message} if chat else {"text": text}),
        "logprobs": logprobs,
        "finish_reason": reason,
    }


def _chat_logprobs(rows: Sequence[TokenLogprobs], tokens: Tokens) -> dict[str, Any]:
    def entry(token_id: int, logprob: float) -> dict[str, Any]:
        found = tokens.bytes_of(token_id)
        return {
            "token": tokens.text_of(token_id),
            "logprob": finite(logprob),
            "bytes": None if found is None else list(found),
        }

    content = [
        {
            **entry(row.token_ids[0], row.logprobs[0]),
            "top_logprobs": [
                entry(token_id, logprob)
                for token_id, logprob in zip(row.token_ids[1:], row.logprobs[1:], strict=True)
            ],
        }
        for row in rows
    ]
    return {"content": content, "refusal": None}


def _logprobs(rows: Sequence[TokenLogprobs], tokens: Tokens) -> dict[str, Any]:
    """The shape of `/v1/completions`."""
    return {
        "tokens": [tokens.text_of(row.token_ids[0]) for row in rows],
        "token_logprobs": [finite(row.logprobs[0]) for row in rows],
        "top_logprobs": [_by_text(row, tokens) for row in rows],
        "text_offset": list(_offsets([row.token_ids[0] for row in rows], tokens)),
    }


def _offsets(token_ids: Sequence[int], tokens: Tokens) -> Iterator[int]:
    """Whole letters of the answer before each token."""
    letters = codecs.getincrementaldecoder("utf-8")("ignore")
    offset = 0
    for token_id in token_ids:
        yield offset
        found = tokens.bytes_of(token_id)
        offset += len(tokens.text_of(token_id) if found is None else letters.decode(found))


def _by_text(row: TokenLogprobs, tokens: Tokens) -> dict[str, float]:
    """Of two tokens with one text, the likelier."""
    found: dict[str, float] = {}
    for token_id, logprob in zip(row.token_ids, row.logprobs, strict=True):
        text = tokens.text_of(token_id)
        found[text] = max(finite(logprob), found.get(text, float("-inf")))
    return found
