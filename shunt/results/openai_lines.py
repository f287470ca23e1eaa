"""`batch_output.jsonl` and `batch_errors.jsonl`: results as OpenAI's batch API writes them."""

import json
from datetime import datetime
from typing import Any

from shunt.checkpoint.generation import Generation
from shunt.dataset.openai_batch import CHAT_URL
from shunt.dataset.whole_text import whole_text
from shunt.results.columns import finite
from shunt.results.outcome import Outcome


def openai_line(row: str | None, outcome: Outcome, *, run_id: str, created_at: datetime) -> str:
    """The result line of one request; an outcome with an error gives an error line."""
    request: dict[str, Any] = json.loads(row) if row else {}
    line: dict[str, Any] = {
        "id": f"batch_req_{run_id}_{outcome.index}",
        "custom_id": outcome.prompt_id,
        "response": None,
        "error": None,
    }
    if outcome.error is not None:
        line["error"] = {
            "code": outcome.error.code.value,
            "message": whole_text(outcome.error.message),
        }
    else:
        line["response"] = {
            "status_code": 200,
            "request_id": f"req_{run_id}_{outcome.index}",
            "body": _body(request, outcome, created_at),
        }
    return json.dumps(line, ensure_ascii=False)


def _body(request: dict[str, Any], outcome: Outcome, created_at: datetime) -> dict[str, Any]:
    chat = request.get("url") == CHAT_URL
    first = outcome.generations[0]
    output_tokens = sum(len(generation.token_ids) for generation in outcome.generations)
    return {
        "id": f"{'chatcmpl' if chat else 'cmpl'}-{outcome.index}",
        "object": "chat.completion" if chat else "text_completion",
        "created": int(created_at.timestamp()),
        "model": request.get("body", {}).get("model"),
        "choices": [_choice(g, index, chat) for index, g in enumerate(outcome.generations)],
        "usage": {
            "prompt_tokens": first.num_prompt_tokens,
            "completion_tokens": output_tokens,
            "total_tokens": first.num_prompt_tokens + output_tokens,
            "prompt_tokens_details": {"cached_tokens": first.num_cached_tokens},
        },
    }


def _choice(generation: Generation, index: int, chat: bool) -> dict[str, Any]:
    assert generation.finish is not None
    text = whole_text(generation.finish.text)
    content = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
    return {
        "index": index,
        **content,
        "logprobs": _chat_logprobs(generation) if chat else _logprobs(generation),
        "finish_reason": generation.finish.finish_reason,
    }


def _chat_logprobs(generation: Generation) -> dict[str, Any] | None:
    """By token id: the control plane has ids, and the text of a single id may be half a letter."""
    if generation.logprobs is None:
        return None
    return {
        "content": [
            {
                "token": f"token_id:{row.token_ids[0]}",
                "logprob": finite(row.logprobs[0]),
                "top_logprobs": [
                    {"token": f"token_id:{token_id}", "logprob": finite(logprob)}
                    for token_id, logprob in zip(row.token_ids[1:], row.logprobs[1:], strict=True)
                ],
            }
            for row in generation.logprobs
        ]
    }


def _logprobs(generation: Generation) -> dict[str, Any] | None:
    """The shape of `/v1/completions`, by token id too."""
    if generation.logprobs is None:
        return None
    return {
        "tokens": [f"token_id:{row.token_ids[0]}" for row in generation.logprobs],
        "token_logprobs": [finite(row.logprobs[0]) for row in generation.logprobs],
        "top_logprobs": [
            {
                f"token_id:{token_id}": finite(logprob)
                for token_id, logprob in zip(row.token_ids, row.logprobs, strict=True)
            }
            for row in generation.logprobs
        ],
    }
