"""Every finished answer is held against its constraint, whatever made it."""

from typing import Any

import pytest

from shunt.job.sampling import StructuredOutput
from shunt.structure.answer import Keeping, Kept, check_answer, worst_of

AGE = {"json": {"type": "object", "properties": {"age": {"type": "integer", "minimum": 0}}}}


def kept(given: dict[str, Any], text: str, *, ended: bool = True, reasons: bool = False) -> Kept:
    structure = StructuredOutput.model_validate(given)
    return check_answer(structure, text, ended=ended, reasons=reasons)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (AGE, ' {"age": 3}\n'),
        ({"json": '{"type": "integer"}'}, "7"),
        ({"json": {"$defs": {"a": {"type": "string"}}, "$ref": "#/$defs/a"}}, '"x"'),
        ({"json": {"type": "string", "pattern": r"^\p{L}+$"}}, '"é"'),
        ({"json_object": True}, "{}"),
        ({"choice": ["a", "b"]}, "b"),
        ({"regex": r"\p{L}+\d"}, "né3"),
        ({"regex": "a.b"}, "a\nb"),
    ],
)
def test_it_is_kept(given: dict[str, Any], text: str) -> None:
    assert kept(given, text) == Kept(Keeping.KEPT)


@pytest.mark.parametrize(
    ("given", "text", "why"),
    [
        (AGE, '{"age": -1}', "$.age: -1 is less than the minimum of 0"),
        (AGE, '{"age": NaN}', "is not JSON: NaN is no number of JSON"),
        (AGE, '{"age"', "is not JSON: "),
        ({"json": {"not": {}}}, "1", "$: 1 should not be valid under {}"),
        ({"json": {"uniqueItems": True}}, "[1, 1]", "$: [1, 1] has non-unique elements"),
        ({"json": {"pattern": "^(?!b)"}}, '"bc"', "$: 'bc' does not match '^(?!b)'"),
        ({"json_object": True}, "[]", "is no JSON object"),
        ({"choice": ["a", "b"]}, "c", "is none of the choices"),
        ({"regex": "(?!b).+"}, "bc", "does not match the regular expression"),
        ({"regex": "a"}, "ab", "does not match the regular expression"),
    ],
)
def test_it_is_broken_and_says_where(given: dict[str, Any], text: str, why: str) -> None:
    found = kept(given, text)
    assert found.keeping is Keeping.BROKEN
    assert found.why.startswith(why)


def test_an_answer_that_was_cut_is_a_kind_apart() -> None:
    assert kept(AGE, '{"age"', ended=False) == Kept(Keeping.CUT)
    assert kept(AGE, '{"age": 1}', ended=False) == Kept(Keeping.KEPT)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"grammar": 'root ::= "a"'}, "b"),
        ({"structural_tag": "{}"}, "b"),
        ({"regex": "(a+)+$"}, "a" * 40 + "b"),  # takes forever, and is given up
        ({"json": {"$ref": "https://example.com/s.json"}}, "1"),  # nothing is fetched
        ({"regex": "("}, "a"),
    ],
)
def test_what_cannot_be_told_is_not_called_broken(given: dict[str, Any], text: str) -> None:
    assert kept(given, text).keeping in (Keeping.UNCHECKED, Keeping.BROKEN)
    if "regex" not in given or given["regex"] == "(":
        assert kept(given, text).keeping is Keeping.UNCHECKED


def test_thoughts_before_an_answer_are_no_part_of_it() -> None:
    text = '<think>{"age": "no"}</think>\n\n{"age": 1}'
    assert kept(AGE, text, reasons=True).keeping is Keeping.KEPT
    assert kept(AGE, text).keeping is Keeping.BROKEN
    assert kept(AGE, '<think></think>{"age": -1}', reasons=True).keeping is Keeping.BROKEN
    assert kept(AGE, "another parser's thought, 1", reasons=True).keeping is Keeping.UNCHECKED


def test_the_worst_of_several_choices_is_told() -> None:
    good, cut, bad = Kept(Keeping.KEPT), Kept(Keeping.CUT), Kept(Keeping.BROKEN, "x")
    assert worst_of([good, cut]) == cut
    assert worst_of([good, bad, cut]) == Kept(Keeping.BROKEN, "choice 1: x")
    assert worst_of([bad]) == bad
