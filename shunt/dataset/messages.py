"""The `messages` of a row: checked, and kept as they were given."""

# Parsed JSON has no types before it is checked.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

import json
from collections.abc import Mapping
from typing import Any, NoReturn, cast

from shunt.dataset.conversation import part_text
from shunt.dataset.row_error import RowErrorCode
from shunt.errors import RequestRefused

_ROLES = ("assistant", "developer", "system", "tool", "user")
_CALLS = "assistant"


def read_messages(given: Any) -> tuple[dict[str, Any], ...]:
    """The messages, nulls left out. Raises `RequestRefused` naming the message and what is wrong.

    What is left is text: images, sounds and files are refused, as an engine gets tokens only.
    """
    messages = given
    if isinstance(given, str):  # tabular files hold lists as JSON text
        try:
            messages = json.loads(given)
        except ValueError:
            _refuse("messages: is text, but not a JSON list")
    if not isinstance(messages, list):
        _refuse("messages: must be a list")
    if not messages:
        _refuse("messages: is empty", RowErrorCode.EMPTY_PROMPT)
    checked = [_message(message, number) for number, message in enumerate(messages)]
    if not any(_has_text(message) for message in checked):
        _refuse("messages: have no text", RowErrorCode.EMPTY_PROMPT)
    return tuple(checked)


def pattern_of(messages: tuple[Mapping[str, Any], ...]) -> tuple[object, ...]:
    """What of a chat decides whether a template takes it, beside the texts: roles and keys."""
    return tuple((m["role"], isinstance(m.get("content"), list), *sorted(m)) for m in messages)


def _message(message: Any, number: int) -> dict[str, Any]:
    if not isinstance(message, dict):
        _refuse(f"messages[{number}]: must be an object")
    given = {k: v for k, v in cast("dict[str, Any]", message).items() if v is not None}
    role = given.get("role")
    if role not in _ROLES:
        _refuse(f"messages[{number}].role: {role!r} must be one of {', '.join(_ROLES)}")
    if "tool_calls" in given:
        _check_calls(given["tool_calls"], number)
    if "content" in given:
        _check_content(given["content"], number)
    elif role != _CALLS or not given.get("tool_calls"):
        _refuse(f"messages[{number}].content: must be text")
    return given


def _check_content(content: Any, number: int) -> None:
    if isinstance(content, str):
        return
    if not isinstance(content, list):
        _refuse(f"messages[{number}].content: must be text")
    for part in content:
        if part_text(part) is None:
            _refuse(
                f"messages[{number}].content: only text parts are supported",
                RowErrorCode.UNSUPPORTED_PARAMETER,
            )


def _check_calls(calls: Any, number: int) -> None:
    where = f"messages[{number}].tool_calls"
    if not isinstance(calls, list):
        _refuse(f"{where}: must be a list")
    for call in calls:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or call.get("type", "function") != "function":
            _refuse(f"{where}: each must be of type function, with a function object")
        if not isinstance(function.get("name"), str):
            _refuse(f"{where}: function.name must be text")


def _has_text(message: Mapping[str, Any]) -> bool:
    content = message.get("content", "")
    parts = content if isinstance(content, list) else [content]
    return any((part_text(part) or "").strip() for part in parts)


def _refuse(message: str, code: RowErrorCode = RowErrorCode.INVALID_MESSAGES) -> NoReturn:
    raise RequestRefused(code, message)
