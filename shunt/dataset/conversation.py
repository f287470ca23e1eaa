"""Chat messages as a template is to see them: what vLLM's OpenAI server hands it for the same body.

Templates come in two kinds. Most want the content of a message as text; some loop over its parts.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from jinja2 import nodes

_TEXT_PARTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
"""Kinds of content parts that are text, and the key that holds it."""
_DEVELOPER = ('"developer"', "'developer'")


def part_text(part: Any) -> str | None:
    """The text of a part of a message's content; None where it is no text."""
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        return None
    given = cast("Mapping[str, Any]", part)
    text = given.get(_TEXT_PARTS.get(given.get("type", "text"), ""))
    return text if isinstance(text, str) else None


def conversation(
    messages: Sequence[Mapping[str, Any]], template: str, *, as_parts: bool
) -> list[dict[str, Any]]:
    """The messages for `template`: contents in its kind, tool arguments as objects, `developer`
    as `system` where it does not know that role. What a template is not shown is left out."""
    made = [_message(message, as_parts=as_parts) for message in messages]
    if any(m["role"] == "developer" for m in made) and not any(d in template for d in _DEVELOPER):
        return _one_system_message([_as_system(message) for message in made])
    return made


def wants_parts(tree: nodes.Template) -> bool:
    """Whether the template loops over the parts of a content, and not over text."""
    in_macros = {id(loop) for macro in tree.find_all(nodes.Macro) for loop in _loops(macro)}
    given = _macro_contents(tree)
    return any(
        _is_content(loop.iter, given if id(loop) in in_macros else {"content"})
        for loop in _loops(tree)
    )


def _loops(tree: nodes.Node) -> list[nodes.For]:
    return list(tree.find_all(nodes.For))


def _macro_contents(tree: nodes.Template) -> set[str]:
    """Names of macro parameters that a content is handed to."""
    macros = {macro.name: macro for macro in tree.find_all(nodes.Macro)}
    found: set[str] = set()
    for call in tree.find_all(nodes.Call):
        macro = macros.get(call.node.name) if isinstance(call.node, nodes.Name) else None
        if macro is None:
            continue
        for parameter, argument in zip(macro.args, call.args, strict=False):
            if _is_content(argument, set()):
                found.add(parameter.name)
        found |= {k.key for k in call.kwargs if _is_content(k.value, set())}
    return found


def _is_content(node: nodes.Node | None, names: set[str]) -> bool:
    """Whether the expression is `message.content`, perhaps filtered or sliced, or such a name."""
    if isinstance(node, (nodes.Filter, nodes.Test)):
        return _is_content(node.node, names)
    if isinstance(node, nodes.Name):
        return node.name in names
    if isinstance(node, nodes.Getattr):
        return node.attr == "content"
    if isinstance(node, nodes.Getitem):
        if isinstance(node.arg, nodes.Slice):
            return _is_content(node.node, names)
        return isinstance(node.arg, nodes.Const) and node.arg.value == "content"
    return False


def _message(message: Mapping[str, Any], *, as_parts: bool) -> dict[str, Any]:
    role, content = message["role"], message.get("content")
    parts = cast("list[Any]", content if isinstance(content, list) else [content])
    texts = [part_text(part) or "" for part in parts if part is not None]
    made: dict[str, Any] = {"role": role, "content": "\n".join(texts)}
    if as_parts and role != "tool":
        made["content"] = [{"type": "text", "text": text} for text in texts]
    if role == "assistant":
        if message.get("tool_calls"):
            made["tool_calls"] = [_tool_call(call) for call in message["tool_calls"]]
        reasoning = message.get("reasoning", message.get("reasoning_content"))
        if reasoning is not None:
            made |= {"reasoning": reasoning, "reasoning_content": reasoning}
    elif role == "tool" and "tool_call_id" in message:
        made["tool_call_id"] = message["tool_call_id"]
    elif role == "developer":
        made["tools"] = message.get("tools")
    if isinstance(message.get("name"), str):
        made["name"] = message["name"]
    return made


def _tool_call(call: Mapping[str, Any]) -> dict[str, Any]:
    """With its arguments as an object; OpenAI's API gives and takes them as JSON text."""
    arguments = call["function"].get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            arguments = None
    arguments = cast("dict[str, Any]", arguments) if isinstance(arguments, dict) else {}
    # The order of OpenAI's types, as templates print these objects.
    function = {"arguments": arguments, "name": call["function"]["name"]}
    identity = {"id": call["id"]} if "id" in call else {}
    return {**identity, "function": function, "type": "function"}


def _as_system(message: dict[str, Any]) -> dict[str, Any]:
    if message["role"] != "developer":
        return message
    return {k: v for k, v in message.items() if k != "tools"} | {"role": "system"}


def _one_system_message(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All system messages as one, in front: templates that have them elsewhere are rare."""
    system = [message for message in messages if message["role"] == "system"]
    if len(system) == 1 and messages[0]["role"] == "system":
        return messages
    texts = [_text(message["content"]) for message in system]
    merged = {"role": "system", "content": "\n\n".join(text for text in texts if text)}
    return [merged, *(message for message in messages if message["role"] != "system")]


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "\n".join(part["text"] for part in content)
