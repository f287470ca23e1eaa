"""Tools of a chat: shown to the template, and calls that are demanded as structured outputs."""

import json
from typing import Any

import jsonschema
import pytest

from shunt.dataset.openai_tools import AUTO, read_tools, tool_calls
from shunt.errors import RequestRefused

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"$ref": "#/$defs/City"}},
            "required": ["city"],
            "$defs": {"City": {"type": "string"}},
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "clock"}}
NAMED = {"type": "function", "function": {"name": "weather"}}


def test_tools_without_a_demand_are_only_shown() -> None:
    shown, schema = read_tools([WEATHER, CLOCK], "none", None)
    assert schema is None
    assert shown[0]["function"] == WEATHER["function"]
    assert shown[1]["function"] == {"name": "clock", "description": None, "parameters": None}
    assert read_tools([], None, None) == read_tools(None, "none", True) == ([], None)


def test_a_named_call_has_the_parameters_of_its_function() -> None:
    _, schema = read_tools([CLOCK, WEATHER], NAMED, None)
    assert schema == WEATHER["function"]["parameters"]  # type: ignore[index]
    [call] = tool_calls(NAMED, '{"city": "Köln"}', "7_0") or []
    assert call == {
        "id": "call_7_0_0",
        "type": "function",
        "function": {"name": "weather", "arguments": '{"city": "Köln"}'},
    }


def test_required_calls_are_a_list_of_any_of_them() -> None:
    _, schema = read_tools([CLOCK, WEATHER], "required", None)
    answer = [
        {"name": "weather", "parameters": {"city": "x"}},
        {"name": "clock", "parameters": {}},
    ]
    jsonschema.validate(answer, schema)
    for wrong in ([], [{"name": "x", "parameters": {}}], [{"name": "weather", "parameters": {}}]):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)
    calls = tool_calls("required", json.dumps(answer), "7_0") or []
    assert [call["function"]["name"] for call in calls] == ["weather", "clock"]
    _, one = read_tools([CLOCK, WEATHER], "required", False)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(answer, one)


def test_the_model_chooses_where_its_calls_can_be_read() -> None:
    for choice in AUTO:
        shown, schema = read_tools([WEATHER, CLOCK], choice, None, reads_calls=True)
        assert (len(shown), schema) == (2, None)
    strict = {"type": "function", "function": {"name": "f", "strict": True}}
    for tools, parallel, name in (
        ([CLOCK, strict], None, r"tools\[1\].function.strict: true is not supported"),
        ([CLOCK], False, "parallel_tool_calls: false is not supported"),
    ):
        with pytest.raises(RequestRefused, match=name):
            read_tools(tools, "auto", parallel, reads_calls=True)


@pytest.mark.parametrize("text", ["", "[{", "{}", '[{"name": "x"}]', "[1]"])
def test_an_answer_that_is_no_call_stays_a_text(text: str) -> None:
    assert tool_calls("required", text, "0_0") is None


@pytest.mark.parametrize(
    ("tools", "choice", "told"),
    [
        ([WEATHER], None, "tool_choice 'auto' needs a parser .* set model.tool_call_parser"),
        ([WEATHER], "auto", "tool_choice 'auto' needs a parser"),
        ([WEATHER], "sometimes", "tool_choice: 'sometimes' must be none, auto, required"),
        ([], "required", "there are no tools"),
        ([WEATHER], {"type": "function", "function": {"name": "x"}}, "'x' is none of the tools"),
        ([{"type": "custom"}], "none", r"tools\[0\]: must be of type function"),
        ([{"type": "function", "function": {}}], "none", "name: must be text"),
        ({}, "auto", "there are no tools"),
        ("x", "none", "must be a list"),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(tools: Any, choice: Any, told: str) -> None:
    with pytest.raises(RequestRefused, match=told):
        read_tools(tools, choice, None)
