"""Tools of an OpenAI chat body: what the template is shown of them, and calls that are demanded.

A call that `tool_choice` demands is a structured output, so that it needs no parser of the model's
own syntax. Whether to call at all (`auto`) is the model's choice, which only such a parser can
read: the worker does (`model.tool_call_parser`), or it is refused.
"""

# Parsed JSON has no types before it is checked.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, cast

from shunt.dataset.row_error import RowErrorCode
from shunt.errors import RequestRefused

_FIELDS = ("name", "description", "parameters", "strict")
_ANY_OBJECT: Mapping[str, Any] = {"type": "object"}


AUTO = (None, "auto")
"""The choices by which the model chooses."""


def read_tools(
    tools: Any, choice: Any, parallel: Any, *, reads_calls: bool = False
) -> tuple[list[dict[str, Any]], Any]:
    """(tools as vLLM's server shows them to a template, JSON schema of a demanded call or None).

    Raises `RequestRefused`.
    """
    if not tools:
        if choice not in (None, "none"):
            _refuse(RowErrorCode.UNSUPPORTED_PARAMETER, "tool_choice: there are no tools")
        return [], None
    if not isinstance(tools, list):
        _refuse(RowErrorCode.INVALID_PARAMETER, "tools: must be a list")
    shown = [_tool(tool, number) for number, tool in enumerate(tools)]
    if choice == "none":
        return shown, None
    if choice == "required":
        return shown, _any_call(shown, parallel=parallel is not False)
    if isinstance(choice, dict):
        return shown, _parameters(_named(shown, choice))
    if choice not in AUTO:
        _refuse(
            RowErrorCode.INVALID_PARAMETER,
            f"tool_choice: {choice!r} must be none, auto, required, or the function to call",
        )
    if not reads_calls:
        _refuse(
            RowErrorCode.UNSUPPORTED_PARAMETER,
            "tools: tool_choice 'auto' needs a parser of the model's own calls; set "
            "model.tool_call_parser in the job (docs/jobs.md), or here none, required, or the "
            "function to call",
        )
    _require_free(shown, parallel)
    return shown, None


def _require_free(tools: Sequence[Mapping[str, Any]], parallel: Any) -> None:
    """What would bind the model's own calls is refused: they are read, not enforced."""
    told = "is not supported with tool_choice 'auto'; leave it out, or set required"
    if parallel is False:
        _refuse(RowErrorCode.UNSUPPORTED_PARAMETER, f"parallel_tool_calls: false {told}")
    for number, tool in enumerate(tools):
        if tool["function"].get("strict"):
            name = f"tools[{number}].function.strict"
            _refuse(RowErrorCode.UNSUPPORTED_PARAMETER, f"{name}: true {told}")


def read_calls(message: str, request_name: str) -> dict[str, Any]:
    """The content, and the calls if there are any, of what the worker read (`Finish.message`)."""
    read = json.loads(message)
    if not read["calls"]:
        return {"content": read["content"]}
    calls = [
        {"id": f"call_{request_name}_{number}", "type": "function", "function": call}
        for number, call in enumerate(read["calls"])
    ]
    return {"content": read["content"], "tool_calls": calls}


def tool_calls(choice: Any, text: str, request_name: str) -> list[dict[str, Any]] | None:
    """The calls in an answer to a body with this `tool_choice`; None where none was demanded, or
    where the answer is no whole call. `request_name` makes their ids."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(choice, dict):
        name = choice.get("function", {}).get("name")
        calls = [{"name": name, "parameters": value}]
    elif choice == "required" and isinstance(value, list):
        calls = value
    else:
        return None
    try:
        return [
            {
                "id": f"call_{request_name}_{number}",
                "type": "function",
                "function": {
                    "name": call["name"],
                    "arguments": json.dumps(call["parameters"], ensure_ascii=False),
                },
            }
            for number, call in enumerate(calls)
        ]
    except (KeyError, TypeError):
        return None


def _tool(tool: Any, number: int) -> dict[str, Any]:
    where = f"tools[{number}]"
    function = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(function, dict) or tool.get("type", "function") != "function":
        _refuse(RowErrorCode.UNSUPPORTED_PARAMETER, f"{where}: must be of type function")
    given = cast("dict[str, Any]", function)
    if not isinstance(given.get("name"), str) or not given["name"]:
        _refuse(RowErrorCode.INVALID_PARAMETER, f"{where}.function.name: must be text")
    if not isinstance(given.get("parameters", {}), dict | None):
        _refuse(RowErrorCode.INVALID_PARAMETER, f"{where}.function.parameters: must be an object")
    fields = {name: given.get(name) for name in _FIELDS}
    if fields["strict"] is None:
        del fields["strict"]
    return {"type": "function", "function": fields}


def _named(tools: Sequence[Mapping[str, Any]], choice: Mapping[str, Any]) -> Mapping[str, Any]:
    function = choice.get("function")
    name = function.get("name") if isinstance(function, dict) else None
    for tool in tools:
        if tool["function"]["name"] == name:
            return tool["function"]
    _refuse(RowErrorCode.INVALID_PARAMETER, f"tool_choice: {name!r} is none of the tools")


def _parameters(function: Mapping[str, Any]) -> dict[str, Any]:
    return dict(function["parameters"] or _ANY_OBJECT)


def _any_call(tools: Sequence[Mapping[str, Any]], *, parallel: bool) -> dict[str, Any]:
    """A list of calls; definitions of all parameters are put where their references look."""
    definitions: dict[str, Any] = {}
    calls: list[dict[str, Any]] = []
    for tool in tools:
        function = tool["function"]
        parameters = _parameters(function)
        for name, schema in (parameters.pop("$defs", None) or {}).items():
            if definitions.setdefault(name, schema) != schema:
                _refuse(
                    RowErrorCode.INVALID_SCHEMA,
                    f"tools: $defs/{name} of {function['name']} is another one than before",
                )
        properties = {"name": {"const": function["name"]}, "parameters": parameters}
        calls.append(
            {
                "type": "object",
                "properties": properties,
                "required": ["name", "parameters"],
                "additionalProperties": False,
            }
        )
    schema: dict[str, Any] = {"type": "array", "minItems": 1, "items": {"anyOf": calls}}
    if not parallel:
        schema["maxItems"] = 1
    return schema | ({"$defs": definitions} if definitions else {})


def _refuse(code: RowErrorCode, message: str) -> NoReturn:
    raise RequestRefused(code, message)
