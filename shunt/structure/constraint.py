"""A constraint on an answer, looked at by itself: is it one at all?"""

# Parsed JSON has no types before it is checked.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

import json
from functools import lru_cache
from typing import Any, cast

import jsonschema
import referencing.exceptions
from jsonschema.validators import validator_for
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012, SchemaRegistry

from shunt.job.sampling import StructuredOutput
from shunt.structure.schema_rules import subschemas

MAX_NESTING = 64
"""Levels of objects and arrays in a schema: vLLM's `MAX_STRUCTURED_OUTPUT_JSON_NESTING`."""


_NO_FORMATS = jsonschema.FormatChecker(formats=())
"""By default a pattern has to be one of Python's `re`, which knows less than the back ends."""


class NoConstraint(Exception):
    """The structured output is none: the message begins with the key that is wrong."""


def check_constraint(structure: StructuredOutput) -> None:
    """Raises `NoConstraint`: a JSON schema that is not one or leads nowhere, an empty choice..."""
    if structure.json_schema is not None:
        schema_of(structure)
    if structure.choice is not None and not structure.choice:
        raise NoConstraint("structured_outputs.choice: is empty")
    if structure.json_object is False:
        raise NoConstraint("structured_outputs.json_object: must be true where it is given")
    for name in ("grammar", "structural_tag"):
        text = getattr(structure, name)
        if text is not None and not text.strip():
            raise NoConstraint(f"structured_outputs.{name}: is empty")
    if structure.regex is not None and "\0" in structure.regex:
        raise NoConstraint("structured_outputs.regex: has a NUL character")


def schema_of(structure: StructuredOutput) -> dict[str, Any]:
    """The JSON schema as an object, checked. Raises `NoConstraint`."""
    given = structure.json_schema
    try:
        text = given if isinstance(given, str) else json.dumps(given)
        return parsed_schema(text)
    except RecursionError as error:
        raise NoConstraint("structured_outputs.json: is nested too deeply") from error


@lru_cache(maxsize=1024)
def parsed_schema(text: str) -> dict[str, Any]:
    """Cached, as most datasets have few schemas and many rows. Raises `NoConstraint`."""
    try:
        given = json.loads(text)
    except ValueError as error:
        raise NoConstraint(f"structured_outputs.json: is not JSON: {error}") from error
    if not isinstance(given, dict):
        raise NoConstraint("structured_outputs.json: must be an object")
    schema = cast("dict[str, Any]", given)
    if not isinstance(schema.get("$schema", ""), str):
        raise NoConstraint("structured_outputs.json: $schema must be text")
    if _depth(schema) > MAX_NESTING:
        raise NoConstraint(f"structured_outputs.json: is nested over {MAX_NESTING} levels deep")
    kind = validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        kind.check_schema(schema, format_checker=_NO_FORMATS)  # pyright: ignore[reportCallIssue]
    except jsonschema.SchemaError as error:
        why = f"structured_outputs.json: is not a JSON schema: {error.message}"
        raise NoConstraint(why) from error
    _check_references(schema)
    return schema


def _depth(value: Any) -> int:
    """Levels of objects and arrays, `MAX_NESTING` + 1 at most."""
    level, depth = [value], 0
    while level and depth <= MAX_NESTING:
        found = [node for node in level if isinstance(node, (dict, list))]
        depth += bool(found)
        level = [
            child
            for node in found
            for child in (cast("dict[str, Any]", node).values() if isinstance(node, dict) else node)
        ]
    return depth


def registry_of(schema: dict[str, Any]) -> SchemaRegistry:
    """What the references of a schema may lead to: the schema itself. Nothing is fetched."""
    resource = Resource.from_contents(schema, default_specification=DRAFT202012)
    empty: SchemaRegistry = Registry()
    return empty.with_resource("", resource).crawl()


def _check_references(schema: dict[str, Any]) -> None:
    resource = Resource.from_contents(schema, default_specification=DRAFT202012)
    resolver = registry_of(schema).resolver_with_root(resource)
    for place, part in subschemas(schema):
        reference = part.get("$ref")
        if not isinstance(reference, str):
            continue
        try:
            resolver.lookup(reference)
        except (referencing.exceptions.Unresolvable, ValueError) as error:
            remote = "://" in reference
            why = (
                "is not in the schema, and nothing is fetched; put that schema under $defs"
                if remote
                else "leads nowhere"
            )
            raise NoConstraint(
                f"structured_outputs.json: {place}: $ref {reference!r} {why}"
            ) from error
