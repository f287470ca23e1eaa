"""What is no constraint at all is refused with the key that is wrong."""

from typing import Any

import pytest

from shunt.job.sampling import StructuredOutput
from shunt.structure.constraint import MAX_NESTING, NoConstraint, check_constraint


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels - 1):
        schema = {"not": schema}
    return schema


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"json": {"$ref": "#/$defs/zzz"}}, "#: $ref '#/$defs/zzz' leads nowhere"),
        (
            {"json": {"properties": {"a": {"$ref": "https://example.com/s.json"}}}},
            "#/properties/a: $ref 'https://example.com/s.json' is not in the schema",
        ),
        ({"json": {"items": {"anyOf": [{"$ref": "#nope"}]}}}, "#/items/anyOf/0: $ref '#nope'"),
        ({"json": {"type": 7}}, "is not a JSON schema"),
        ({"json": "{"}, "is not JSON"),
        ({"json": "[]"}, "must be an object"),
        ({"json": nested(MAX_NESTING + 1)}, "over 64 levels deep"),
        ({"choice": []}, "choice: is empty"),
        ({"grammar": " \n"}, "grammar: is empty"),
        ({"json_object": False}, "json_object: must be true"),
        ({"regex": "a\0"}, "regex: has a NUL character"),
    ],
)
def test_it_is_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(NoConstraint, match="structured_outputs") as refused:
        check_constraint(StructuredOutput.model_validate(given))
    assert told in str(refused.value)


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"$defs": {"a/b": {"type": "integer"}}, "$ref": "#/$defs/a~1b"},
        {"$defs": {"a": {"$anchor": "q"}}, "$ref": "#q"},
        {"$id": "https://e.com/s", "$defs": {"a": {}}, "$ref": "https://e.com/s#/$defs/a"},
        {"$defs": {"a": {"$id": "https://e.com/a"}}, "$ref": "https://e.com/a"},
        {"enum": [{"$ref": "#/nowhere"}], "properties": {"$ref": {"type": "string"}}},
        nested(MAX_NESTING),
    ],
    ids=str,
)
def test_it_is_taken(schema: dict[str, Any]) -> None:
    check_constraint(StructuredOutput(json=schema))
