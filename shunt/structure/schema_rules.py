"""Keywords of JSON Schema that a grammar back end takes without their meaning.

Found by trying: each back end's grammar of a schema was given answers that break it
(`tests/workers/test_grammars.py` does so again for the installed versions). What a back end refuses
by itself when it compiles need not stand here.
"""

# Parsed JSON has no types before it is checked.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

from collections.abc import Iterator, Mapping
from typing import Any, cast

import jsonschema
from jsonschema.validators import validator_for

Schema = Mapping[str, Any]

_IN_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_IN_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_IN_PLACE = (
    *("additionalProperties", "unevaluatedProperties", "propertyNames", "contains", "items"),
    *("additionalItems", "unevaluatedItems", "not", "if", "then", "else"),
)
"""Where a schema holds others: objects of schemas, lists of them, and single ones."""

_BY_TYPE: Mapping[str, frozenset[str]] = {
    "object": frozenset(
        {"properties", "patternProperties", "additionalProperties", "propertyNames", "required"}
        | {"unevaluatedProperties", "minProperties", "maxProperties"}
    ),
    "array": frozenset(
        {"items", "prefixItems", "additionalItems", "unevaluatedItems", "minItems", "maxItems"}
        | {"contains", "minContains", "maxContains", "uniqueItems"}
    ),
    "string": frozenset({"minLength", "maxLength", "pattern", "format"}),
    "number": frozenset(
        {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}
    ),
}
"""Keywords that say something of values of one type alone."""
_INFERRED = frozenset({"properties", "additionalProperties", "items", "prefixItems"})
"""Keywords from which xgrammar infers the type, where none is given."""
_ALONE = ("$ref", "const", "enum", "anyOf", "oneOf", "allOf")
"""The first of these that a schema has is all that xgrammar reads of it."""
_CONDITIONS = ("not", "if", "dependentRequired", "dependentSchemas", "dependencies")
_CONDITION_PARTS = {"then", "else"}
_DYNAMIC = ("$dynamicRef", "$recursiveRef", "$dynamicAnchor", "$recursiveAnchor")
_ASSERTIONS = frozenset(
    {*_ALONE, *_CONDITIONS, *_CONDITION_PARTS, "type"}.union(*_BY_TYPE.values())
)
"""Keywords that can be broken; all others describe."""
_NOT_IN_GUIDANCE = (
    *(*_CONDITIONS, *_DYNAMIC, "uniqueItems", "contains", "propertyNames"),
    *("unevaluatedProperties", "unevaluatedItems"),
)


def unkept(backend: str, schema: Schema) -> str:
    """The first thing in the schema that the back end would not keep, as a sentence, or empty."""
    look = {"xgrammar": _unkept_by_xgrammar, "guidance": _unkept_by_guidance}.get(backend)
    if look is None:
        return ""
    for place, part in subschemas(schema):
        is_name = place.endswith("/propertyNames")
        if found := look({"type": "string", **part} if is_name else part):
            return f"{place}: {backend} does not keep {found}"
    return ""


def subschemas(schema: Any, place: str = "#") -> Iterator[tuple[str, Schema]]:
    """(JSON pointer, schema) of the schema and all schemas in it. Values of `enum`, `const` and
    `default` are none, whatever they look like."""
    pending: list[tuple[str, Any]] = [(place, schema)]
    while pending:
        where, found = pending.pop()
        if not isinstance(found, dict):
            continue
        yield where, found
        inner = list(_inner(found, where))
        pending += reversed(inner)


def _inner(schema: Schema, where: str) -> Iterator[tuple[str, Any]]:
    for name in _IN_MAPS:
        for key, value in _mapping(schema.get(name)).items():
            yield f"{where}/{name}/{key}", value
    for name in _IN_LISTS:
        value = schema.get(name)
        for number, item in enumerate(value if isinstance(value, list) else ()):
            yield f"{where}/{name}/{number}", item
    for name in _IN_PLACE:
        value = schema.get(name)
        for number, item in enumerate(value if isinstance(value, list) else [value]):
            yield f"{where}/{name}" + (f"/{number}" if isinstance(value, list) else ""), item


def _unkept_by_guidance(schema: Schema) -> str:
    return next((name for name in _NOT_IN_GUIDANCE if _is_said(schema, name)), "")


def _unkept_by_xgrammar(schema: Schema) -> str:
    for name in (*_CONDITIONS, *_DYNAMIC[:2], "uniqueItems", "contains", "multipleOf"):
        if _is_said(schema, name):
            return name
    ruling = next((name for name in _ALONE if name in schema), None)
    if ruling is not None:
        return _beside(schema, ruling)
    if "type" not in schema and not _INFERRED & schema.keys():
        return next((f"{name} without type" for name in _typed_keywords(schema)), "")
    return _required_unknown(schema)


def _is_said(schema: Schema, name: str) -> bool:
    """`uniqueItems: false` says nothing."""
    return name in schema and not (name == "uniqueItems" and schema[name] is False)


def _beside(schema: Schema, ruling: str) -> str:
    """What stands beside the keyword that alone is read, and is more than it says anyway."""
    others = {name: schema[name] for name in schema if name in _ASSERTIONS and name != ruling}
    if not others:
        return ""
    if ruling in ("const", "enum") and "$ref" not in others:
        values = [schema["const"]] if ruling == "const" else schema["enum"]
        others = {name: schema[name] for name in schema if name not in (ruling, "$schema")}
        if isinstance(values, list) and all(_holds(others, value) for value in values):
            return ""
    name = next(name for name in schema if name in _ASSERTIONS and name != ruling)
    return f"{name} beside {ruling}"


def _holds(schema: Schema, value: Any) -> bool:
    kind = validator_for(dict(schema), default=jsonschema.Draft202012Validator)
    try:
        return kind(dict(schema)).is_valid(value)
    except Exception:  # noqa: BLE001 - a reference that leads out of this part: it cannot be told
        return False


def _typed_keywords(schema: Schema) -> Iterator[str]:
    for name in schema:
        if any(name in keywords for keywords in _BY_TYPE.values()):
            yield name


def _required_unknown(schema: Schema) -> str:
    """xgrammar writes the properties that it knows by name; of others it demands nothing."""
    required = schema.get("required")
    known = _mapping(schema.get("properties"))
    names = required if isinstance(required, list) else []
    missing = next((name for name in names if name not in known), None)
    return "" if missing is None else f"required {missing!r}, which is not among properties"


def _mapping(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}
