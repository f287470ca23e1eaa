"""What preflight says of a grammar back end is what the installed one does.

Each schema comes with answers that break it. Where preflight says that a back end enforces the
schema, the back end's own grammar must refuse every one of them.
"""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shunt.job.sampling import StructuredOutput
from shunt.structure.answer import Keeping, check_answer
from shunt.structure.constraint import NoConstraint
from shunt.structure.grammars import Grammars
from shunt.structure.worker_compiler import WorkerCompiler

pytestmark = pytest.mark.vllm

REPOSITORY = Path(__file__).parents[2]
MODEL = REPOSITORY / ".cache" / "models" / "SmolLM2-135M-Instruct"
DRAFT_7 = "http://json-schema.org/draft-07/schema#"
INT = {"type": "integer"}
TWO = {"type": "object", "properties": {"a": INT, "b": INT}}

SCHEMAS: list[tuple[dict[str, Any], list[Any]]] = [
    ({"not": {}}, [1]),
    ({"type": "string", "not": {"const": "a"}}, ["a"]),
    ({"type": "object", "properties": {"a": False}, "additionalProperties": False}, [{"a": 1}]),
    ({**TWO, "if": {"required": ["a"]}, "then": {"required": ["b"]}}, [{"a": 1}]),
    ({**TWO, "dependentRequired": {"a": ["b"]}}, [{"a": 1}]),
    ({**TWO, "dependentSchemas": {"a": {"required": ["b"]}}}, [{"a": 1}]),
    ({"$schema": DRAFT_7, **TWO, "dependencies": {"a": ["b"]}}, [{"a": 1}]),
    ({"type": "object", "properties": {"a": INT}, "minProperties": 1}, [{}]),
    ({**TWO, "maxProperties": 1}, [{"a": 1, "b": 2}]),
    ({"type": "object", "additionalProperties": INT, "maxProperties": 1}, [{"a": 1, "b": 2}]),
    ({"type": "array", "items": INT, "minItems": 2}, [[1]]),
    ({"type": "array", "items": INT, "maxItems": 1}, [[1, 2]]),
    ({"items": INT}, [["a"]]),
    ({"minItems": 2}, [[1]]),
    ({"uniqueItems": True}, [[1, 1]]),
    ({"contains": INT}, [["a"]]),
    ({"minLength": 3}, ["a"]),
    ({"pattern": "^a$"}, ["b"]),
    ({"minimum": 3}, [1]),
    ({"multipleOf": 3}, [1]),
    ({"type": "integer", "minimum": 3}, [1]),
    ({"type": "number", "exclusiveMinimum": 3}, [1, 3]),
    ({"type": "number", "maximum": 3}, [4, 3.5]),
    ({"type": "integer", "multipleOf": 3}, [1]),
    ({"type": "number", "multipleOf": 0.5}, [0.3]),
    ({"type": "object", "required": ["a"]}, [{}, {"b": 1}]),
    ({"type": "object", "properties": {"b": INT}, "required": ["a"]}, [{"b": 1}]),
    ({"required": ["a"]}, [{}]),
    ({"properties": {"a": INT}}, [{"a": "x"}]),
    ({"additionalProperties": False}, [{"a": "x"}]),
    ({"type": "object", "propertyNames": {"pattern": "^a"}}, [{"b": 1}]),
    ({"type": "object", "propertyNames": {"maxLength": 2}}, [{"bbb": 1}]),
    ({"type": "object", "propertyNames": {"enum": ["a"]}}, [{"b": 1}]),
    ({"type": "object", "patternProperties": {"^a$": INT}}, [{"a": "x"}]),
    (
        {"type": "object", "patternProperties": {"^a$": INT}, "additionalProperties": False},
        [{"b": "x"}],
    ),
    ({"type": "object", "properties": {"a": INT}, "unevaluatedProperties": False}, [{"b": 1}]),
    ({"type": "array", "prefixItems": [INT], "unevaluatedItems": False}, [[1, 2]]),
    ({"type": "array", "prefixItems": [INT], "items": False}, [[1, 2]]),
    ({"type": "array", "contains": INT, "minContains": 2}, [[1]]),
    ({"type": "array", "items": INT, "uniqueItems": True}, [[1, 1]]),
    ({"allOf": [INT]}, ["a"]),
    ({"type": "integer", "minimum": 5, "allOf": [{"maximum": 9}]}, [1, 20]),
    ({"allOf": [INT, {"minimum": 3}]}, [1, "a"]),
    ({"anyOf": [INT, {"type": "null"}]}, ["a"]),
    ({**TWO, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]}, [{}]),
    ({"properties": {"a": INT}, "required": ["a"], "anyOf": [{"type": "object"}]}, [{}]),
    ({"oneOf": [INT, {"type": "number"}]}, [1]),
    ({"oneOf": [INT, {"type": "string"}]}, [None]),
    ({"type": "string", "enum": ["a", 1]}, [1]),
    ({"type": "string", "enum": ["a", "b"]}, ["c"]),
    ({"type": "string", "enum": ["a", "bbb"], "maxLength": 1}, ["bbb"]),
    ({"type": "string", "const": 1}, [1]),
    ({"const": 1, "enum": [2]}, [1, 2]),
    ({"$defs": {"a": INT}, "$ref": "#/$defs/a", "minimum": 5}, [1]),
    ({"$defs": {"a": INT}, "$ref": "#/$defs/a", "anyOf": [{"minimum": 5}]}, [1]),
    ({"$ref": "#/$defs/zzz"}, [1]),
    ({"$ref": "https://example.com/x.json"}, [1]),
    ({"$defs": {"a": {"$anchor": "q", "type": "integer"}}, "$ref": "#q"}, ["a"]),
    ({"$defs": {"a/b": INT}, "$ref": "#/$defs/a~1b"}, ["a"]),
    ({"type": "object", "properties": {"c": {"$ref": "#"}}}, [{"c": 1}]),
    (
        {"$dynamicAnchor": "n", "type": "object", "properties": {"c": {"$dynamicRef": "#n"}}},
        [{"c": 1}],
    ),
    ({"type": ["string", "null"], "minLength": 3}, ["a", 1]),
    ({"type": "string", "pattern": "^(?!b).+$"}, ["bc"]),
    ({"type": "string", "pattern": "^(?=a).+$"}, ["bc"]),
    ({"type": "string", "pattern": "^.+(?<!b)$"}, ["ab"]),
    ({"type": "string", "pattern": r"^(a|b)\1$"}, ["ab"]),
    ({"type": "string", "pattern": r"^\p{L}$"}, ["1"]),
    ({"type": "string", "pattern": "^a+$", "maxLength": 2}, ["aaa"]),
    ({"type": "string", "format": "date"}, ["x"]),
    ({"type": "object", "properties": {"a": {"minLength": 3}}, "required": ["a"]}, [{"a": "x"}]),
    ({"const": {"a": [1, 2]}}, [{"a": [1, 3]}]),
    ({"enum": ["a", 1, None, [1]]}, [2]),
    (
        {"$schema": "http://json-schema.org/draft-04/schema#", "type": "integer", "minimum": 3,
         "exclusiveMinimum": True},
        [3],
    ),
]  # fmt: skip
LEADING_NOWHERE = [{"$ref": "#/$defs/zzz"}, {"$ref": "https://example.com/x.json"}]
PATTERNS = [
    ("(?!b).+", "bc"), ("(?=a).", "b"), (r"\p{L}+", "a1"), (r"[\p{L}]", "1"), (r"(a)\1", "ab"),
    (r"a\b", "ab"), ("a^b", "ab"), ("a$b", "ab"), ("^a$", "b"), (r"\Aa\Z", "b"), ("(?i)a", "b"),
    ("(?<n>a)", "b"), (r"\x41", "B"), ("a{2", "aa"), ("a|*", "x"), ("(?:a", "a"), ("[^a]", "a"),
    ("", "a"),
]  # fmt: skip
EVERYDAY: list[dict[str, Any]] = [
    # As pydantic and OpenAI's helpers write them: refusing these would be of no use to anybody.
    {"title": "A", "type": "object", "properties": {
        "name": {"title": "Name", "type": "string", "description": "who", "examples": [{"not": 1}]},
        "age": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None},
        "kind": {"$ref": "#/$defs/Kind"}, "tags": {"type": "array", "items": {"type": "string"}},
        "color": {"const": "red", "type": "string"}},
     "required": ["name", "kind"], "additionalProperties": False,
     "$defs": {"Kind": {"enum": ["a", "b"], "type": "string", "title": "Kind"}}},
    {"type": "array", "minItems": 1, "maxItems": 3, "items": {"type": "number", "minimum": 0}},
    {"type": "string", "maxLength": 20}, {"type": "string", "pattern": "^[a-z]+$"},
]  # fmt: skip


@pytest.fixture(scope="module")
def compiler() -> Iterator[WorkerCompiler]:
    environment = {"PYTHONPATH": str(REPOSITORY), "HOME": os.environ.get("HOME", "/tmp")}
    with WorkerCompiler(Path(sys.executable), str(MODEL), environment, answer_s=120) as compiler:
        yield compiler


@pytest.fixture(scope="module")
def grammars(compiler: WorkerCompiler) -> Grammars:
    return Grammars(compiler)


@pytest.mark.parametrize(("schema", "bad"), SCHEMAS, ids=str)
def test_a_schema_that_passes_is_kept(
    grammars: Grammars, schema: dict[str, Any], bad: list[Any]
) -> None:
    structure = StructuredOutput(json=schema)
    found = {check_answer(structure, json.dumps(v), ended=True, reasons=False).keeping for v in bad}
    is_told = "format" not in schema and schema not in LEADING_NOWHERE
    assert found == ({Keeping.BROKEN} if is_told else found)
    for backend in _taking(grammars, structure):
        accepted = [v for v in bad if _accepts(backend, "json", schema, json.dumps(v))]
        assert not accepted, f"{backend} takes {accepted}"


@pytest.mark.parametrize(("pattern", "bad"), PATTERNS)
def test_a_pattern_that_passes_is_kept(grammars: Grammars, pattern: str, bad: str) -> None:
    for backend in _taking(grammars, StructuredOutput(regex=pattern)):
        assert not _accepts(backend, "regex", pattern, bad), backend


@pytest.mark.parametrize("schema", EVERYDAY, ids=str)
def test_everyday_schemas_are_taken_by_xgrammar(grammars: Grammars, schema: dict[str, Any]) -> None:
    assert "xgrammar" in _taking(grammars, StructuredOutput(json=schema))


@pytest.mark.parametrize(
    "given",
    [{"choice": ["a", "b c", '"']}, {"json_object": True}, {"grammar": 'root ::= "a"'},
     {"regex": r"(\d{3}-\d{4}, ){4}end"}],
    ids=str,
)  # fmt: skip
def test_other_kinds_are_taken_by_both(grammars: Grammars, given: dict[str, Any]) -> None:
    structure = StructuredOutput.model_validate(given)
    assert _taking(grammars, structure) == ["xgrammar", "guidance"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"grammar": "root ::= nope"}, 'Rule "nope" is not defined'),
        ({"structural_tag": "{}"}, "structural_tag"),
        ({"regex": "(?!b).+"}, "Lookahead is not supported"),
        ({"json": {"type": "string", "minLength": 5, "maxLength": 2}}, "greater than maxLength"),
    ],
)
def test_what_nobody_takes_is_refused_with_the_reason(
    grammars: Grammars, given: dict[str, Any], told: str
) -> None:
    with pytest.raises(NoConstraint) as refused:
        grammars.verdict(StructuredOutput.model_validate(given))
    assert told in str(refused.value)


def test_a_constraint_that_takes_too_long_is_refused_and_the_next_one_is_asked() -> None:
    environment = {"PYTHONPATH": str(REPOSITORY)}
    with WorkerCompiler(Path(sys.executable), str(MODEL), environment, answer_s=0) as hasty:
        hasty.answer_s = 0.0
        first = hasty.problem("xgrammar", StructuredOutput(regex="a"))
        hasty.answer_s = 120.0
        assert "to compile" in first
        assert hasty.problem("xgrammar", StructuredOutput(regex="a")) == ""
        assert hasty.note == ""


def test_a_compiler_that_cannot_start_is_told(tmp_path: Path) -> None:
    with WorkerCompiler(Path(sys.executable), str(tmp_path), {"PYTHONPATH": "/"}) as broken:
        assert broken.problem("xgrammar", StructuredOutput(regex="a")) == ""
        assert "did not start: " in broken.note


def _taking(grammars: Grammars, structure: StructuredOutput) -> list[str]:
    try:
        return [name for name, why in grammars.verdict(structure).items() if not why]
    except NoConstraint:
        return []


def _accepts(backend: str, kind: str, spec: Any, text: str) -> bool:
    """Whether the back end's grammar of `spec` takes the text."""
    if backend == "xgrammar":
        import xgrammar
        from xgrammar.testing import _is_grammar_accept_string

        make = xgrammar.Grammar.from_regex
        grammar = (
            xgrammar.Grammar.from_json_schema(json.dumps(spec)) if kind == "json" else make(spec)
        )
        return bool(_is_grammar_accept_string(grammar, text))
    import llguidance

    if kind == "json":
        grammar = llguidance.LLMatcher.grammar_from_json_schema(
            json.dumps(spec), defaults={"whitespace_flexible": True}
        )
    else:
        grammar = llguidance.grammar_from("regex", spec)
    matcher = llguidance.LLMatcher(llguidance.LLTokenizer("byte"), grammar, log_level=0)
    assert not matcher.get_error()
    return all(matcher.consume_tokens([b]) for b in text.encode()) and matcher.is_accepting()
