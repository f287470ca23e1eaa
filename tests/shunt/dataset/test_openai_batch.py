"""Every parameter of a request line is translated, or refused by its name."""

from typing import Any

import pytest

from shunt.dataset.openai_batch import CHAT_URL, COMPLETIONS_URL, translate
from shunt.errors import RequestRefused
from shunt.job.sampling import Sampling

MESSAGES = [{"role": "user", "content": "hi"}]
SCHEMA = {"type": "object"}


def chat(**body: Any) -> dict[str, Any]:
    body = {"model": "m", "messages": MESSAGES, **body}
    return {"custom_id": "c", "method": "POST", "url": CHAT_URL, "body": body}


def completion(**body: Any) -> dict[str, Any]:
    body = {"model": "m", "prompt": "hi", **body}
    return {"custom_id": "c", "method": "POST", "url": COMPLETIONS_URL, "body": body}


@pytest.mark.parametrize(
    ("body", "sampling"),
    [
        ({}, {}),
        ({"temperature": 0}, {"temperature": 0}),
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"max_tokens": 5, "max_completion_tokens": 6}, {"max_tokens": 6}),
        ({"logprobs": True}, {"logprobs": 0}),
        ({"logprobs": True, "top_logprobs": 3}, {"logprobs": 3}),
        ({"logprobs": False}, {}),
        ({"response_format": {"type": "text"}}, {}),
        (
            {"response_format": {"type": "json_object"}},
            {"structured_outputs": {"json_object": True}},
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}},
            {"structured_outputs": {"json": SCHEMA}},
        ),
        ({"stream": False, "tools": [], "user": "u", "stop": None}, {}),
    ],
)
def test_chat_parameters(body: dict[str, Any], sampling: dict[str, Any]) -> None:
    columns, own = translate(chat(**body))
    assert columns == {"messages": MESSAGES}
    assert own == sampling


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("top_p", 0.5),
        ("top_k", 4),
        ("min_p", 0.1),
        ("n", 2),
        ("seed", 7),
        ("stop", ["a"]),
        ("presence_penalty", 1.0),
        ("frequency_penalty", 1.0),
        ("repetition_penalty", 1.1),
        ("logit_bias", {"5": 1.0}),
        ("min_tokens", 2),
        ("stop_token_ids", [1]),
        ("ignore_eos", True),
        ("structured_outputs", {"regex": "a+"}),
    ],
)
@pytest.mark.parametrize("line", [chat, completion])
def test_shared_parameters_reach_sampling(line: Any, name: str, value: Any) -> None:
    _, own = translate(line(**{name: value}))
    assert own[name] == value
    assert Sampling.model_validate(own).model_fields_set >= {name}


@pytest.mark.parametrize(
    "body",
    [
        {"service_tier": "flex", "store": False, "metadata": {"a": "b"}, "user": "u"},
        {"stream": False, "stream_options": None, "safety_identifier": "x"},
        {"prompt_cache_key": "k", "length_penalty": 1.0, "priority": 0},
        {"top_p": None, "seed": None, "n": None, "stop": None},
    ],
)
@pytest.mark.parametrize("line", [chat, completion])
def test_what_asks_for_nothing_is_taken(line: Any, body: dict[str, Any]) -> None:
    assert translate(line(**body))[1] == {}


@pytest.mark.parametrize(
    "body",
    [
        {"modalities": ["text"], "audio": None, "verbosity": "medium", "function_call": "none"},
        {"parallel_tool_calls": True, "tools": [], "tool_choice": "none"},
        {"prediction": {"type": "content", "content": "x"}, "add_generation_prompt": True},
    ],
)
def test_what_asks_for_nothing_of_a_chat_is_taken(body: dict[str, Any]) -> None:
    assert translate(chat(**body)) == ({"messages": MESSAGES}, {})


@pytest.mark.parametrize("line", [chat, completion])
def test_top_p_of_nothing_is_the_likeliest_token(line: Any) -> None:
    assert translate(line(top_p=0))[1] == {"temperature": 0}
    assert translate(line(top_p=0.0, temperature=1.5))[1] == {"temperature": 0}
    assert translate(line(top_p=0.5))[1] == {"top_p": 0.5}


@pytest.mark.parametrize(
    ("body", "template"),
    [
        ({"reasoning_effort": "low"}, {"enable_thinking": True, "reasoning_effort": "low"}),
        ({"reasoning_effort": "none"}, {"enable_thinking": False, "reasoning_effort": "none"}),
        ({"chat_template_kwargs": {"enable_thinking": False}}, {"enable_thinking": False}),
        (
            {"chat_template_kwargs": {"enable_thinking": False}, "reasoning_effort": "high"},
            {"enable_thinking": False, "reasoning_effort": "high"},
        ),
    ],
)
def test_a_template_is_told_of_it(body: dict[str, Any], template: dict[str, Any]) -> None:
    columns, own = translate(chat(**body))
    assert columns == {"messages": MESSAGES, "template": template}
    assert own == {}


def test_a_call_that_is_demanded_is_a_structured_output() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}
    named = {"type": "function", "function": {"name": "f"}}
    columns, own = translate(chat(tools=[tool], tool_choice=named))
    assert own == {"structured_outputs": {"json": SCHEMA}}
    assert columns["template"]["tools"][0]["function"]["name"] == "f"
    with pytest.raises(RequestRefused, match="tool_choice"):
        translate(chat(tools=[tool], tool_choice=named, response_format={"type": "json_object"}))


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tool_choice 'auto'"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"reasoning_effort": "huge"}, "reasoning_effort"),
        ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs"),
        ({"logprob_token_ids": [1]}, "needs logprobs: true"),
    ],
)
def test_what_a_template_cannot_be_told_is_refused(body: dict[str, Any], told: str) -> None:
    with pytest.raises(RequestRefused, match=told):
        translate(chat(**body))


def test_vllms_own_parameters_are_taken_in_both() -> None:
    given = {"repetition_detection": {"max_pattern_size": 2}, "thinking_token_budget": 5}
    assert translate(chat(**given))[1] == given == translate(completion(**given))[1]
    wanted = {"logprobs": True, "logprob_token_ids": [1, 2]}
    assert translate(chat(**wanted))[1] == {"logprob_token_ids": [1, 2]}


def test_a_list_of_one_prompt_is_that_prompt() -> None:
    assert translate(completion(prompt=["hi"]))[0] == {"prompt": "hi"}
    assert translate(completion(prompt=[[1, 2]]))[0] == {"token_ids": [1, 2]}


def test_completions_have_their_own_defaults_and_prompts() -> None:
    columns, own = translate(completion(logprobs=2))
    assert columns == {"prompt": "hi"}
    assert own == {"logprobs": 2}
    columns, _ = translate(completion(prompt=[1, 2]))
    assert columns == {"token_ids": [1, 2]}


@pytest.mark.parametrize(
    "body",
    [
        {"functions": [{}]},
        {"store": "yes"},
        {"service_tier": "fast"},
        {"verbosity": "low"},
        {"web_search_options": {}},
        {"n_best": 2},
        {"add_generation_prompt": False},
        {"length_penalty": 2},
        {"adapter": "x"},
        {"stream": True},
        {"audio": {"voice": "x"}},
        {"modalities": ["audio"]},
        {"response_format": {"type": "grammar"}},
        {"response_format": "json"},
        {"echo": True},
        {"best_of": 2},
        {"suffix": "x"},
        {"store": True},
        {"guided_regex": "a"},
        {"temprature": 1},
    ],
)
@pytest.mark.parametrize("line", [chat, completion])
def test_what_has_no_translation_is_refused_by_name(line: Any, body: dict[str, Any]) -> None:
    with pytest.raises(RequestRefused, match=next(iter(body))) as refusal:
        translate(line(**body))
    assert refusal.value.code == "unsupported_parameter"


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        (chat() | {"url": "/v1/embeddings"}, "unsupported_url", "url '/v1/embeddings'"),
        (chat() | {"method": "GET"}, "unsupported_url", "method 'GET'"),
        (chat() | {"body": []}, "malformed_row", "body: must be an object"),
        (chat() | {"priority": 1}, "unsupported_parameter", "priority"),
        (chat(top_logprobs=2), "invalid_parameter", "top_logprobs: needs logprobs: true"),
        (completion(prompt=["a", "b"]), "unsupported_parameter", "give each its own line"),
        (
            chat(response_format={"type": "json_schema"}),
            "invalid_schema",
            "json_schema.schema: is missing",
        ),
    ],
)
def test_a_wrong_line_is_refused(line: dict[str, Any], code: str, message: str) -> None:
    with pytest.raises(RequestRefused, match=message) as refusal:
        translate(line)
    assert refusal.value.code == code
