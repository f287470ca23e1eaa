"""Does a structured-output constraint compile? Asked before anything runs."""

import json
import re
from functools import lru_cache
from typing import cast

import jsonschema
from jsonschema.validators import validator_for

from shunt.dataset.row_error import RowErrorCode
from shunt.errors import RequestRefused
from shunt.job.sampling import StructuredOutput


def check_structure(structure: StructuredOutput) -> None:
    """Raises `RequestRefused` for a JSON schema or regular expression that is not one.

    What only the engine's grammar back end can tell (a feature that it lacks) it tells itself, as
    an error row.
    """
    if structure.json_schema is not None:
        schema = structure.json_schema
        _check_schema(schema if isinstance(schema, str) else json.dumps(schema, sort_keys=True))
    if structure.regex is not None:
        _check_regex(structure.regex)
    if structure.choice is not None and not structure.choice:
        raise RequestRefused(RowErrorCode.INVALID_SCHEMA, "structured_outputs.choice: is empty")


@lru_cache(maxsize=1024)
def _check_schema(text: str) -> None:
    """Cached, as most datasets have few schemas and many rows."""
    try:
        given = json.loads(text)
        if not isinstance(given, dict):
            why = "structured_outputs.json: must be an object"
            raise RequestRefused(RowErrorCode.INVALID_SCHEMA, why)
        schema = cast("dict[str, object]", given)
        if not isinstance(schema.get("$schema", ""), str):
            why = "structured_outputs.json: $schema must be text"
            raise RequestRefused(RowErrorCode.INVALID_SCHEMA, why)
        validator_for(schema).check_schema(schema)
    except ValueError as error:
        why = f"structured_outputs.json: is not JSON: {error}"
        raise RequestRefused(RowErrorCode.INVALID_SCHEMA, why) from error
    except jsonschema.SchemaError as error:
        why = f"structured_outputs.json: is not a JSON schema: {error.message}"
        raise RequestRefused(RowErrorCode.INVALID_SCHEMA, why) from error


@lru_cache(maxsize=1024)
def _check_regex(pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        why = f"structured_outputs.regex: does not compile: {error}"
        raise RequestRefused(RowErrorCode.INVALID_SCHEMA, why) from error
