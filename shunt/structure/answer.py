"""Does a finished answer keep its constraint? Asked of every one, whatever the back end did."""

# Jsonschema and regex leave types open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any, NoReturn

import jsonschema
import regex
from jsonschema.validators import extend, validator_for

from shunt.job.sampling import StructuredOutput
from shunt.structure.constraint import parsed_schema, registry_of, schema_of

_MATCH_S = 2.0
"""For one pattern and one text: patterns of strangers may take forever."""
_END_OF_THOUGHT = "</think>"
_SHOWN = 200


class Keeping(StrEnum):
    """What became of a constraint. The values are stable: users filter on them."""

    KEPT = "kept"
    CUT = "cut"
    """The answer ended before it could be whole: at max_tokens, a stop string, a repetition."""
    BROKEN = "broken"
    UNCHECKED = "unchecked"
    """Grammars and structural tags, and what cannot be told from outside the engine."""


@dataclass(frozen=True, slots=True)
class Kept:
    """The finding, and for a broken constraint where and why."""

    keeping: Keeping
    why: str = ""


class _Broken(Exception):
    """The answer breaks its constraint."""


class _Untold(Exception):
    """It cannot be told."""


def check_answer(structure: StructuredOutput, text: str, *, ended: bool, reasons: bool) -> Kept:
    """`ended`: by the model itself, and not cut. `reasons`: the engine has a reasoning parser, and
    lets the model think before the constraint begins."""
    answer, thought = text, False
    if reasons and _END_OF_THOUGHT in text:
        answer, thought = text.rpartition(_END_OF_THOUGHT)[2].strip(), True
    try:
        _check(structure, answer)
    except _Broken as broken:
        if not ended:
            return Kept(Keeping.CUT)
        if reasons and not thought:
            return Kept(Keeping.UNCHECKED)
        return Kept(Keeping.BROKEN, str(broken)[:_SHOWN])
    except _Untold:
        return Kept(Keeping.UNCHECKED)
    return Kept(Keeping.KEPT)


_WORST_FIRST = (Keeping.BROKEN, Keeping.CUT, Keeping.UNCHECKED, Keeping.KEPT)


def worst_of(found: Sequence[Kept]) -> Kept:
    """What is said of a prompt with several choices."""
    if not found:
        return Kept(Keeping.UNCHECKED)
    number, worst = min(enumerate(found), key=lambda item: _WORST_FIRST.index(item[1].keeping))
    if worst.why and len(found) > 1:
        return Kept(worst.keeping, f"choice {number}: {worst.why}")
    return worst


def _check(structure: StructuredOutput, text: str) -> None:
    """Raises `_Broken` and `_Untold`."""
    if structure.json_schema is not None:
        _check_schema(structure, _parsed(text))
    elif structure.json_object:
        if not isinstance(_parsed(text), dict):
            raise _Broken("is no JSON object")
    elif structure.choice is not None:
        if text not in structure.choice:
            raise _Broken("is none of the choices")
    elif structure.regex is not None:
        if not _matches(structure.regex, text, whole=True):
            raise _Broken("does not match the regular expression")
    else:
        raise _Untold


def _parsed(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_number)
    except ValueError as error:
        raise _Broken(f"is not JSON: {error}") from error
    except RecursionError as error:
        raise _Untold from error


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _check_schema(structure: StructuredOutput, value: Any) -> None:
    try:
        schema = schema_of(structure)
        validator = _validator(json.dumps(schema))
        error = next(iter(validator.iter_errors(value)), None)
    except _Untold:
        raise
    except Exception as error:
        raise _Untold from error
    if error is not None:
        place = error.json_path
        raise _Broken(f"{place}: {error.message}")


@lru_cache(maxsize=256)
def _validator(text: str) -> Any:
    """Of the schema's own draft; its patterns are bounded in time, its references stay inside."""
    schema = parsed_schema(text)
    kind: Any = validator_for(schema, default=jsonschema.Draft202012Validator)
    bounded = extend(kind, {"pattern": _pattern})
    return bounded(schema, registry=registry_of(schema))


def _pattern(_validator: Any, pattern: str, value: Any, _schema: Any) -> Any:
    if isinstance(value, str) and not _matches(pattern, value, whole=False):
        yield jsonschema.ValidationError(f"{value!r} does not match {pattern!r}")


def _matches(pattern: str, text: str, *, whole: bool) -> bool:
    """A dot is any character: xgrammar has it so. Raises `_Untold`."""
    try:
        compiled = _compiled(pattern)
        find = compiled.fullmatch if whole else compiled.search
        return find(text, timeout=_MATCH_S) is not None
    except (regex.error, TimeoutError, RecursionError) as error:
        raise _Untold from error


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> Any:
    return regex.compile(pattern, regex.DOTALL)
