"""The JSON text of one row: read strictly, and edited without touching the rest of it.

What JSON itself has no word for but many programs write is read all the same: `NaN`, `Infinity`,
half of a surrogate pair, integers of any size. A key that stands twice in one object is refused, as
one of its values would be dropped without a word.
"""

# Parsed JSON has no types before it is checked.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any, NamedTuple

import orjson

_MANY_DIGITS = re.compile(rb"[0-9]{19}")  # what may not fit 64 bits
_MOST_DIGITS = 4300
"""Python reads and writes no longer integers."""
_SPACED_COLONS = (b" :", b"\t:", b"\r:", b"\n:")
_SPACE = re.compile(r"[ \t\r\n]*")
_TEXT_OR_CONSTANT = re.compile(r'"(?:[^"\\]|\\.)*"|-?Infinity|NaN', re.DOTALL)
_VALUES = json.JSONDecoder()


class RepeatedKey(ValueError):
    """An object named a key twice."""

    def __init__(self, key: str) -> None:
        super().__init__(f"names the key {json.dumps(key)} twice")


class Member(NamedTuple):
    """A key and its value in the text of an object, and where they stand in it."""

    key: str
    value: Any
    key_span: tuple[int, int]
    value_span: tuple[int, int]


def parse_json(data: bytes) -> Any:
    """One value. Raises `RepeatedKey`, and `ValueError` for what is no JSON or no UTF-8."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        return _parse_closely(data.decode())
    # orjson makes floats of integers over 64 bits, and keeps the last of two values of a key.
    if _MANY_DIGITS.search(data) or not _keys_differ(data, value):
        return _parse_closely(data.decode())
    return value


def all_keys_differ(lines: Sequence[bytes], rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether no object of these lines names a key twice; `rows` is what orjson makes of them."""
    if list(map(bytes.count, lines, repeat(b":"))) == list(map(len, rows)):
        return True  # every colon follows another key: most rows are so
    return all(map(_keys_differ, lines, rows))


def members(text: str) -> Iterator[Member]:
    """The members of the object that the text is, as far as it can be read."""
    at = _past_space(text, 0)
    while at < len(text) and text[at] in "{,":
        begin = _past_space(text, at + 1)
        if text[begin : begin + 1] != '"':
            return
        try:
            key, end = _VALUES.raw_decode(text, begin)
            colon = _past_space(text, end)
            if text[colon : colon + 1] != ":":
                return
            first = _past_space(text, colon + 1)
            value, last = _VALUES.raw_decode(text, first)
        except (ValueError, RecursionError):
            return
        yield Member(key, value, (begin, end), (first, last))
        at = _past_space(text, last)


def readable(text: str) -> dict[str, Any]:
    """The members that can be read of a damaged object, but those of a key that it repeats."""
    found: dict[str, Any] = {}
    repeated: set[str] = set()
    for member in members(text):
        if member.key in found:
            repeated.add(member.key)
        found[member.key] = member.value
    return {key: value for key, value in found.items() if key not in repeated}


def edited(text: str, *, names: Mapping[str, str], values: Mapping[str, Any]) -> str:
    """The object's text with other names for some keys and other values behind some.

    Every other character stays as it was. A key that the object lacks changes nothing.
    """
    pieces: list[str] = []
    done = 0
    for member in members(text):
        changes: list[tuple[tuple[int, int], Any]] = []
        if member.key in names:
            changes.append((member.key_span, names[member.key]))
        if member.key in values:
            changes.append((member.value_span, values[member.key]))
        for (begin, end), new in changes:
            pieces += [text[done:begin], json.dumps(new, ensure_ascii=False)]
            done = end
    return "".join([*pieces, text[done:]])


def without_constants(text: str) -> str:
    """The text with null in place of `NaN` and the infinities, which are not JSON."""
    if "NaN" not in text and "Infinity" not in text:
        return text
    return _TEXT_OR_CONSTANT.sub(lambda found: found[0] if found[0][0] == '"' else "null", text)


def inside(value: Any) -> Iterable[Any]:
    """The values directly inside an object or a list."""
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _parse_closely(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_unrepeated, parse_int=_integer)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _integer(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"it has an integer of {len(digits):,} digits")
    return int(digits)


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise RepeatedKey(key)
        found[key] = value
    return found


def _keys_differ(data: bytes, value: Any) -> bool:
    """True where the number of colons that follow a quote shows it; else by a close look."""
    num_keys = _num_keys(value)
    if data.count(b":") == num_keys:
        return True
    if data.count(b'":') == num_keys and not any(colon in data for colon in _SPACED_COLONS):
        return True
    try:
        _parse_closely(data.decode())
    except ValueError:
        return False
    return True


def _num_keys(value: Any) -> int:
    count = 0
    level = [value]
    while level:
        count += sum(len(each) for each in level if isinstance(each, dict))
        level = [inner for outer in level for inner in inside(outer)]
    return count


def _past_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return at if found is None else found.end()
