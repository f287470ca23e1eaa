"""Values of Arrow columns as Python has them, and as text where it cannot have them."""

# Pyarrow's stubs leave type parameters open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportAttributeAccessIssue=false

from typing import Any, Literal

import pyarrow as pa

_NO_VALUE = (ArithmeticError, ValueError, KeyError, pa.ArrowException)
"""What `as_py` raises where Python has no such value."""

BadBytes = Literal["surrogateescape", "backslashreplace"]


def plain_values(column: Any, bad_bytes: BadBytes) -> list[Any]:
    """The values of an array or a chunked array.

    Text says exactly what Python cannot hold: nanoseconds, years before 1 and after 9999, instants
    of time zones that are unknown here. `bad_bytes`: what becomes of bytes in a text that are no
    UTF-8: an escape, or half of a surrogate pair, so that whoever reads the text sees that it is
    none.
    """
    if not _counts_nanoseconds(column.type):
        try:
            return column.to_pylist()
        except _NO_VALUE:
            pass  # one by one, below
    return [_plain(scalar, bad_bytes) for scalar in column]


def _counts_nanoseconds(kind: Any) -> bool:
    """Whether a value of this type, or a part of one, does. Pyarrow gives types of pandas for such
    where pandas is installed, and none elsewhere."""
    if isinstance(kind, pa.DictionaryType):
        return _counts_nanoseconds(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        return _counts_nanoseconds(kind.storage_type)
    if pa.types.is_nested(kind):
        return any(_counts_nanoseconds(kind.field(n).type) for n in range(kind.num_fields))
    return getattr(kind, "unit", "") == "ns"


def _of_microseconds(scalar: Any) -> Any:
    """Nanoseconds as microseconds, which Python has; refused where something is lost. Anything else
    as it is."""
    kind = scalar.type
    if getattr(kind, "unit", "") != "ns":
        return scalar
    if pa.types.is_timestamp(kind):
        return scalar.cast(pa.timestamp("us", tz=kind.tz))
    return scalar.cast(pa.duration("us") if pa.types.is_duration(kind) else pa.time64("us"))


def _plain(scalar: Any, bad_bytes: BadBytes) -> Any:
    if not scalar.is_valid:
        return None
    kind = scalar.type
    if not _counts_nanoseconds(kind) or hasattr(kind, "unit"):
        try:
            return _of_microseconds(scalar).as_py()
        except _NO_VALUE:
            pass  # told in parts, or as text, below
    if pa.types.is_map(kind):
        pairs = (scalar_of.values() for scalar_of in scalar.values)
        return [tuple(_plain(part, bad_bytes) for part in pair) for pair in pairs]
    if pa.types.is_struct(kind):
        return {name: _plain(value, bad_bytes) for name, value in scalar.items()}
    if pa.types.is_nested(kind):
        return [_plain(value, bad_bytes) for value in scalar.values]
    if isinstance(kind, pa.DictionaryType | pa.BaseExtensionType):
        return _plain(scalar.value, bad_bytes)
    if hasattr(scalar, "as_buffer"):
        return scalar.as_buffer().to_pybytes().decode(errors=bad_bytes)
    try:
        return scalar.cast(pa.string()).as_py()
    except _NO_VALUE:
        return f"{scalar.value} {kind}"
