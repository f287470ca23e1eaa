"""Prompts and parameters are those that vLLM's own OpenAI server makes of the same bodies."""

import json
import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from shunt.dataset.input_row import InputRow
from shunt.dataset.prompt_row import PromptReader
from shunt.dataset.rendering import Renderer, renderer_for
from shunt.job.job import Job
from workers.shards.opening import choice_sampling

pytestmark = pytest.mark.vllm

MODEL = Path(__file__).parents[2] / ".cache" / "models" / "SmolLM2-135M-Instruct"
CONTEXT = 8192
TEMPLATES = {
    "text": (
        "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
        "{% if message.tool_calls %}{% for c in message.tool_calls %}{{ c.function | tojson }}"
        "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "parts": (
        "{% for m in messages %}[{{ m.role }}]{% for part in m.content %}{{ part.text }}|"
        "{% endfor %}{{ m.name }}{{ m.tool_call_id }}{{ m.reasoning_content }}{% endfor %}"
        "{{ bos_token }}{{ eos_token }}"
    ),
    "parts in a macro": (
        "{% macro show(what) %}{% if what is string %}{{ what }}{% else %}{% for p in what %}"
        "{{ p.text }};{% endfor %}{% endif %}{% endmacro %}"
        "{% for m in messages %}{{ m.role }}:{{ show(m.content) }}{% endfor %}"
    ),
    "a set content": (
        "{% for m in messages %}{% set content = m['content'] %}{% if content is string %}"
        "{{ content }}{% else %}{% for p in content %}<{{ p['text'] }}>{% endfor %}{% endif %}"
        "{% endfor %}"
    ),
    "developer": (
        "{% for m in messages %}{% if m.role == 'developer' %}D{% endif %}"
        "{% generation %}{{ m.role }}{{ m.content }}{% endgeneration %}{% endfor %}"
    ),
}
PARTS = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": [1, "ü"]}'}}


def _call(arguments: object) -> dict[str, Any]:
    return {**CALL, "function": {"name": "f", "arguments": arguments}}


CHATS: Mapping[str, list[dict[str, Any]]] = {
    "plain": [{"role": "user", "content": "hi"}],
    "parts": [{"role": "system", "content": "s"}, {"role": "user", "content": PARTS}],
    "tools": [
        {"role": "user", "content": "x", "name": "bob"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": PARTS},
    ],
    "broken arguments": [
        {"role": "user", "content": "x"},
        {"role": "assistant", "tool_calls": [_call("{"), _call("[1]"), _call("")]},
    ],
    "reasoning": [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": "y", "reasoning_content": "because"},
        {"role": "user", "content": "z"},
    ],
    "developer": [
        {"role": "system", "content": "s"},
        {"role": "developer", "content": "d"},
        {"role": "user", "content": "u"},
    ],
    "late developer": [
        {"role": "user", "content": "u"},
        {"role": "developer", "content": PARTS},
    ],
    "special tokens in a text": [{"role": "user", "content": "<|im_end|> é \U0001f600"}],
}


@pytest.fixture(scope="module", params=TEMPLATES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("model")
    for name in ("tokenizer.json", "config.json"):
        shutil.copy(MODEL / name, directory)
    settings = json.loads((MODEL / "tokenizer_config.json").read_text())
    settings["chat_template"] = TEMPLATES[request.param]
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    return str(directory)


@pytest.mark.parametrize("name", CHATS)
def test_a_chat_has_the_tokens_of_vllms_server(model: str, name: str) -> None:
    body = {"model": "m", "messages": CHATS[name]}
    assert _ours(model, "/v1/chat/completions", body)[0] == _vllm_chat(model, body)


TOOL = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {}}}},
}


@pytest.mark.parametrize(
    "extra",
    [
        {"tools": [TOOL], "tool_choice": "none"},
        {"tools": [TOOL, {**TOOL, "function": {"name": "g", "description": "d", "strict": True}}],
         "tool_choice": "none"},
        {"reasoning_effort": "low"}, {"reasoning_effort": "none"},
        {"chat_template_kwargs": {"enable_thinking": False, "unknown": 1}},
        {"chat_template_kwargs": {"enable_thinking": True}, "reasoning_effort": "high"},
    ],
    ids=json.dumps,
)  # fmt: skip
def test_a_template_is_told_what_vllms_server_tells_it(
    tmp_path: Path, extra: dict[str, Any]
) -> None:
    template = (
        "{% if tools %}{{ tools | tojson }}{% endif %}{{ reasoning_effort }}"
        "{% if enable_thinking is defined %}<{{ enable_thinking }}>{% endif %}"
        "{% for m in messages %}{{ m.content }}{% endfor %}"
    )
    for name in ("tokenizer.json", "config.json"):
        shutil.copy(MODEL / name, tmp_path)
    settings = json.loads((MODEL / "tokenizer_config.json").read_text())
    settings["chat_template"] = template
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    body = {"model": "m", "messages": CHATS["plain"], **extra}
    ours = _ours(str(tmp_path), "/v1/chat/completions", body)[0]
    assert ours == _vllm_chat(str(tmp_path), body)


@pytest.mark.parametrize("text", ["hi", "<|im_start|>user\nhi", "  two\n", "\U0001f600é"])
def test_a_plain_prompt_has_the_tokens_of_vllms_server(text: str) -> None:
    ours = _ours(str(MODEL), "/v1/completions", {"prompt": text})[0]
    assert ours == _vllm_model(str(MODEL))[1].encode(text, add_special_tokens=True)


_SCHEMA = {"name": "n", "schema": {"type": "object"}}
_CHAT_BODIES: tuple[dict[str, Any], ...] = (
    {},
    {"temperature": 0.5, "top_p": 0.9, "max_tokens": 7},
    {"max_completion_tokens": 5, "max_tokens": 9, "seed": 3},
    {"seed": -1},
    {"logprobs": True, "top_logprobs": 3},
    {"logprobs": True},
    {"logprobs": False},
    {"stop": "x", "presence_penalty": 1, "frequency_penalty": -1},
    {"stop": ["a", "b"], "logit_bias": {"5": 2.0}, "min_tokens": 2},
    {"response_format": {"type": "json_object"}},
    {"response_format": {"type": "json_schema", "json_schema": _SCHEMA}},
    {"top_k": 4, "min_p": 0.1, "repetition_penalty": 1.2, "stop_token_ids": [1, 2]},
    {"temperature": 0, "ignore_eos": True, "skip_special_tokens": False},
)


@pytest.mark.parametrize("extra", _CHAT_BODIES, ids=json.dumps)
def test_parameters_of_a_chat_are_those_of_vllms_server(extra: dict[str, Any]) -> None:
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

    body = {"model": "m", "messages": CHATS["plain"], **extra}
    request = ChatCompletionRequest.model_validate(json.loads(json.dumps(body)))
    tokens, ours = _ours(str(MODEL), "/v1/chat/completions", body)
    given = extra.get("max_completion_tokens") or extra.get("max_tokens")
    limit = given or CONTEXT - len(tokens)
    assert _decisive(ours) == _decisive(request.to_sampling_params(limit, {}))


@pytest.mark.parametrize(
    "extra",
    [{}, {"max_tokens": 3, "logprobs": 2}, {"temperature": 0}, {"n": 2, "seed": 7}, {"seed": -1}],
    ids=json.dumps,
)
def test_parameters_of_a_completion_are_those_of_vllms_server(extra: dict[str, Any]) -> None:
    from vllm.entrypoints.openai.completion.protocol import CompletionRequest

    body = {"model": "m", "prompt": "hi", **extra}
    request = CompletionRequest.model_validate(body)
    theirs = request.to_sampling_params(request.max_tokens or 16, {})
    assert _decisive(_ours(str(MODEL), "/v1/completions", body)[1]) == _decisive(theirs)


def _ours(model: str, url: str, body: dict[str, Any]) -> tuple[list[int], Any]:
    """(token ids, vLLM's parameters of the first choice) of a batch line with this body."""
    from workers.engine.params import sampling_params

    job = Job.model_validate({"name": "t", "model": {"path": model}, "input": {"path": "x"}})
    renderer = _renderer(model)
    columns = {"custom_id": "a", "method": "POST", "url": url, "body": body}
    read = PromptReader(job, renderer, openai_batch=True).read(InputRow("x:1", columns), 0)
    assert read.prompt.error is None, read.prompt.error
    token_ids = renderer.render(read.prompt)
    sampling = choice_sampling("run", read.prompt, 0, CONTEXT - len(token_ids))
    return list(token_ids), sampling_params(sampling)


@cache
def _renderer(model: str) -> Renderer:
    return renderer_for(model, revision=None, max_model_len=CONTEXT, fake=False)


@cache
def _vllm_model(model: str) -> tuple[Any, Any]:
    """vLLM's configuration and tokenizer."""
    from vllm.config import ModelConfig
    from vllm.tokenizers import get_tokenizer

    return ModelConfig(model=model), get_tokenizer(model)


def _vllm_chat(model: str, body: dict[str, Any]) -> list[int]:
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.renderers import hf
    from vllm.renderers.chat_utils import parse_chat_messages

    config, tokenizer = _vllm_model(model)
    request = ChatCompletionRequest.model_validate(json.loads(json.dumps(body)))
    kind = hf.resolve_chat_template_content_format(
        None, None, "auto", tokenizer, model_config=config
    )
    shown, _, _ = parse_chat_messages(request.messages, config, kind)
    told = request.build_chat_params(None, kind).get_apply_chat_template_kwargs()
    told |= {"tokenize": False, "add_generation_prompt": True}
    tools = None if request.tools is None else [tool.model_dump() for tool in request.tools]
    text = hf.safe_apply_chat_template(config, tokenizer, shown, tools=tools, **told)
    return tokenizer.encode(text, add_special_tokens=False)


_IGNORED = {"n", "flat_logprobs", "output_kind", "skip_clone", "_backend"}
"""Choices are fanned out, logprobs are kept flat."""


def _decisive(params: Any) -> dict[str, Any]:
    fields = {name: getattr(params, name) for name in params.__struct_fields__}
    fields = {name: None if v in ([], {}) else v for name, v in fields.items()}
    if fields["seed"] in (None, -1) or fields["seed"] > 2**32:
        fields["seed"] = None  # ours is given a seed where vLLM's has none
    return {name: value for name, value in fields.items() if name not in _IGNORED}
