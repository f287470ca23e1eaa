"""OpenAI batch request lines: every parameter is translated or refused by name, never dropped."""

# Parsed JSON has no types before it is checked.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from shunt.dataset.row_error import RowErrorCode
from shunt.errors import RequestRefused

CHAT_URL = "/v1/chat/completions"
COMPLETIONS_URL = "/v1/completions"

DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    CHAT_URL: {"temperature": 1.0, "max_tokens": None},
    COMPLETIONS_URL: {"temperature": 1.0, "max_tokens": 16},
}
"""OpenAI's, where neither body nor job nor the model itself says anything. No `max_tokens`: what
the context has room for."""
_KEYS = {"custom_id", "method", "url", "body"}
_SAME_NAME = {
    "temperature", "top_p", "top_k", "min_p", "seed", "n", "stop", "presence_penalty",
    "frequency_penalty", "repetition_penalty", "logit_bias", "min_tokens", "stop_token_ids",
    "include_stop_str_in_output", "ignore_eos", "skip_special_tokens", "bad_words",
    "spaces_between_special_tokens", "prompt_logprobs", "allowed_token_ids", "structured_outputs",
}  # fmt: skip
"""OpenAI's and vLLM's parameters that `Sampling` knows under the same name."""
_WITHOUT_EFFECT: Mapping[str, Callable[[Any], bool]] = {
    "model": lambda _value: True,  # one job serves one model; the output names it
    "user": lambda _value: True,
    "metadata": lambda _value: True,
    "store": lambda value: value in (None, False),
    "stream": lambda value: value in (None, False),
    "echo": lambda value: value in (None, False),
    "best_of": lambda value: value in (None, 1),
    "suffix": lambda value: value is None,
    "tools": lambda value: not value,
    "tool_choice": lambda value: value in (None, "none"),
}
"""Parameters that ask for nothing, when their value is as here."""


def translate(line: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(prompt columns, sampling parameters) of one request line.

    Raises `RequestRefused` with the code and the name of what is wrong.
    """
    for key in line.keys() - _KEYS:
        _refuse(RowErrorCode.UNSUPPORTED_PARAMETER, f"{key}: is not a key of a batch line")
    if line.get("method", "POST") != "POST":
        _refuse(RowErrorCode.UNSUPPORTED_URL, f"method {line['method']!r}: must be POST")
    body, url = line.get("body"), line.get("url")
    if not isinstance(body, dict):
        _refuse(RowErrorCode.MALFORMED_ROW, "body: must be an object")
    if url == CHAT_URL:
        return _chat(body)
    if url == COMPLETIONS_URL:
        return _completion(body)
    _refuse(
        RowErrorCode.UNSUPPORTED_URL,
        f"url {url!r}: must be {CHAT_URL} or {COMPLETIONS_URL}",
    )


def _chat(body: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    rest = dict(body)
    columns = {"messages": rest.pop("messages", None)}
    sampling: dict[str, Any] = {}
    wants, top = rest.pop("logprobs", None), rest.pop("top_logprobs", None)
    if wants:
        sampling["logprobs"] = top or 0
    elif top:
        _refuse(RowErrorCode.INVALID_PARAMETER, "top_logprobs: needs logprobs: true")
    limit = rest.pop("max_completion_tokens", None)
    older = rest.pop("max_tokens", None)
    limit = older if limit is None else limit
    if limit is not None:
        sampling["max_tokens"] = limit
    return columns, sampling | _shared_parameters(rest)


def _completion(body: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    rest = dict(body)
    prompt = rest.pop("prompt", None)
    if isinstance(prompt, list) and any(isinstance(part, str) for part in prompt):
        _refuse(
            RowErrorCode.UNSUPPORTED_PARAMETER, "prompt: a list of texts; give each its own line"
        )
    columns = {"token_ids" if isinstance(prompt, list) else "prompt": prompt}
    sampling: dict[str, Any] = {}
    for name in ("logprobs", "max_tokens"):
        if (value := rest.pop(name, None)) is not None:
            sampling[name] = value
    return columns, sampling | _shared_parameters(rest)


def _shared_parameters(rest: dict[str, Any]) -> dict[str, Any]:
    """What is left of a body after the parameters that the two endpoints spell differently."""
    sampling: dict[str, Any] = {}
    if (response_format := rest.pop("response_format", None)) is not None:
        sampling |= _structured(response_format)
    for name, value in rest.items():
        if name in _SAME_NAME:
            if value is not None:
                sampling[name] = value
        elif not _WITHOUT_EFFECT.get(name, lambda _value: False)(value):
            _refuse(RowErrorCode.UNSUPPORTED_PARAMETER, f"{name}: is not supported")
    return sampling


def _structured(response_format: Any) -> dict[str, Any]:
    kind = response_format.get("type") if isinstance(response_format, dict) else None
    if kind == "text":
        return {}
    if kind == "json_object":
        return {"structured_outputs": {"json_object": True}}
    if kind == "json_schema":
        schema = response_format.get("json_schema")
        if isinstance(schema, dict) and isinstance(schema.get("schema"), dict):
            return {"structured_outputs": {"json": schema["schema"]}}
        _refuse(RowErrorCode.INVALID_SCHEMA, "response_format.json_schema.schema: is missing")
    _refuse(
        RowErrorCode.UNSUPPORTED_PARAMETER,
        f"response_format.type {kind!r}: must be text, json_object or json_schema",
    )


def _refuse(code: RowErrorCode, message: str) -> NoReturn:
    raise RequestRefused(code, message)
