"""The id of a row: always text, whatever the input has."""

import json
import math
from base64 import b64encode
from collections.abc import Mapping
from datetime import date, datetime, time
from typing import Any


def made_id(index: int) -> str:
    """The id of a row that has none."""
    return f"row-{index:08d}"


def says_nothing(value: Any) -> bool:
    """Null, an empty cell, or NaN, which many programs write for a value that is missing."""
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def id_text(value: Any) -> str | None:
    """The text of an id: `5` is `"5"`, a list or an object its JSON text. None where the value
    says nothing."""
    if says_nothing(value):
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, bool | list | dict):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=plain_text)
    return plain_text(value)


def plain_text(value: Any) -> str:
    """A value of a type that JSON has no word for, as text."""
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, bytes):
        return bytes_text(value)
    return str(value)


def bytes_text(value: bytes) -> str:
    """In base64, as JSON results have it."""
    return b64encode(value).decode()


def own_id(columns: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    """The first of the named columns that says something."""
    found = (id_text(columns.get(name)) for name in names)
    return next((text for text in found if text is not None), None)
