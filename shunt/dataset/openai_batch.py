"""OpenAI batch request lines: every parameter is translated or refused by name, never dropped."""

# Parsed JSON has no types before it is checked.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from shunt.dataset.openai_parameters import asks_for_nothing
from shunt.dataset.openai_tools import AUTO, read_tools
from shunt.dataset.row_error import RowErrorCode
from shunt.errors import RequestRefused
from shunt.job.sampling import Sampling

CHAT_URL = "/v1/chat/completions"
COMPLETIONS_URL = "/v1/completions"

DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    CHAT_URL: {"temperature": 1.0, "max_tokens": None},
    COMPLETIONS_URL: {"temperature": 1.0, "max_tokens": 16},
}
"""OpenAI's, where neither body nor job nor the model itself says anything. No `max_tokens`: what
the context has room for."""
_KEYS = {"custom_id", "method", "url", "body"}
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_SPELLED_OTHERWISE = {"max_tokens", "logprobs", "adapter", "top_p"}
_SAME_NAME = set(Sampling.model_fields) - _SPELLED_OTHERWISE
"""OpenAI's and vLLM's parameters that `Sampling` knows under the same name."""
_NOT_FOR_TEMPLATES = {
    *("messages", "tools", "documents", "add_generation_prompt", "continue_final_message"),
    *("chat_template", "tokenize"),
}


def translate(
    line: Mapping[str, Any], *, reads_calls: bool = False
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(prompt columns, sampling parameters) of one request line.

    `reads_calls`: there is a parser of the model's own calls of tools. Raises `RequestRefused` with
    the code and the name of what is wrong.
    """
    for key in line.keys() - _KEYS:
        _refuse(RowErrorCode.UNSUPPORTED_PARAMETER, f"{key}: is not a key of a batch line")
    if line.get("method", "POST") != "POST":
        _refuse(RowErrorCode.UNSUPPORTED_URL, f"method {line['method']!r}: must be POST")
    body, url = line.get("body"), line.get("url")
    if not isinstance(body, dict):
        _refuse(RowErrorCode.MALFORMED_ROW, "body: must be an object")
    if url == CHAT_URL:
        return _chat(body, reads_calls=reads_calls)
    if url == COMPLETIONS_URL:
        return _completion(body)
    _refuse(
        RowErrorCode.UNSUPPORTED_URL,
        f"url {url!r}: must be {CHAT_URL} or {COMPLETIONS_URL}",
    )


def _chat(body: Mapping[str, Any], *, reads_calls: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    rest = dict(body)
    columns: dict[str, Any] = {"messages": rest.pop("messages", None)}
    sampling: dict[str, Any] = {}
    wants, top = rest.pop("logprobs", None), rest.pop("top_logprobs", None)
    if wants:
        # Of named tokens, no others are given besides.
        sampling |= {} if rest.get("logprob_token_ids") else {"logprobs": top or 0}
    elif top or rest.get("logprob_token_ids"):
        name = "top_logprobs" if top else "logprob_token_ids"
        _refuse(RowErrorCode.INVALID_PARAMETER, f"{name}: needs logprobs: true")
    limit = rest.pop("max_completion_tokens", None)
    older = rest.pop("max_tokens", None)
    limit = older if limit is None else limit
    if limit is not None:
        sampling["max_tokens"] = limit
    call = _tell_template(rest, columns, reads_calls=reads_calls)
    sampling |= _shared_parameters(rest, chat=True)
    if call is not None:
        if "structured_outputs" in sampling:
            _refuse(
                RowErrorCode.UNSUPPORTED_PARAMETER,
                "tool_choice: a call is demanded, and response_format demands another answer",
            )
        sampling["structured_outputs"] = {"json": call}
    return columns, sampling


def _tell_template(rest: dict[str, Any], columns: dict[str, Any], *, reads_calls: bool) -> Any:
    """Takes out of `rest` what the chat template is told, and puts it into `columns`. Returns the
    JSON schema of a tool call that is demanded, or None."""
    values = rest.pop("chat_template_kwargs", None) or {}
    if not isinstance(values, dict) or _NOT_FOR_TEMPLATES & values.keys():
        _refuse(
            RowErrorCode.INVALID_PARAMETER,
            "chat_template_kwargs: must be an object of the template's own variables",
        )
    values = dict(values)
    if (effort := rest.pop("reasoning_effort", None)) is not None:
        if effort not in _EFFORTS:
            known = ", ".join(_EFFORTS)
            _refuse(RowErrorCode.INVALID_PARAMETER, f"reasoning_effort: must be one of {known}")
        values = {"enable_thinking": effort != "none", **values, "reasoning_effort": effort}
    parallel = rest.pop("parallel_tool_calls", None)
    choice = rest.pop("tool_choice", None)
    tools, call = read_tools(rest.pop("tools", None), choice, parallel, reads_calls=reads_calls)
    if tools:
        values["tools"] = tools
        if choice in AUTO:
            columns["reads_calls"] = True
    if values:
        columns["template"] = values
    return call


def _completion(body: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    rest = dict(body)
    prompt = rest.pop("prompt", None)
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], (str, list)):
        [prompt] = prompt
    if isinstance(prompt, list) and any(isinstance(part, str) for part in prompt):
        _refuse(
            RowErrorCode.UNSUPPORTED_PARAMETER, "prompt: a list of texts; give each its own line"
        )
    columns = {"token_ids" if isinstance(prompt, list) else "prompt": prompt}
    sampling: dict[str, Any] = {}
    for name in ("logprobs", "max_tokens"):
        if (value := rest.pop(name, None)) is not None:
            sampling[name] = value
    return columns, sampling | _shared_parameters(rest, chat=False)


def _shared_parameters(rest: dict[str, Any], *, chat: bool) -> dict[str, Any]:
    """What is left of a body after the parameters that the two endpoints spell differently."""
    top_p = _top_p(rest.pop("top_p", None))
    sampling: dict[str, Any] = {}
    if (response_format := rest.pop("response_format", None)) is not None:
        sampling |= _structured(response_format)
    for name, value in rest.items():
        if name in _SAME_NAME:
            if value is not None:
                sampling[name] = value
        elif not asks_for_nothing(name, value, chat=chat):
            told = "is not supported" if value is None else f"{json.dumps(value)} is not supported"
            _refuse(RowErrorCode.UNSUPPORTED_PARAMETER, f"{name}: {told[:80]}")
    return sampling | top_p


def _top_p(value: Any) -> dict[str, Any]:
    """OpenAI takes 0, which leaves the likeliest token alone; to vLLM that is greedy sampling. With
    `top_k: 1` it would draw among tokens that are equally likely."""
    if value is None:
        return {}
    is_zero = type(value) in (int, float) and value == 0
    return {"temperature": 0} if is_zero else {"top_p": value}


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
