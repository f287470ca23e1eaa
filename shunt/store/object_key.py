"""Which keys are allowed: those that every store holds unchanged, directory and S3 alike."""

import re

from shunt.store.errors import ObjectKeyInvalid

_SEGMENT = re.compile(r"[A-Za-z0-9_=+@,~:-][A-Za-z0-9_=+@,~:.-]*")
"""No leading dot: that rules out `.` and `..`, and keeps dot names for files being staged."""

_MAX_SEGMENT_BYTES = 200
"""A file name holds 255 bytes (Linux NAME_MAX); the rest is for the name of its staged copy."""

_MAX_KEY_BYTES = 1024
"""The limit of S3."""


def check_key(key: str) -> str:
    """Return the key. Raises `ObjectKeyInvalid` unless it is `segment(/segment)*`."""
    segments = key.split("/")
    if len(key) <= _MAX_KEY_BYTES and all(_is_segment(segment) for segment in segments):
        return key
    raise ObjectKeyInvalid(
        f"object key {key!r} is not usable: give segments of the characters A-Z a-z 0-9 _=+@,~:.- "
        f"joined by single slashes, none beginning with a dot, none over {_MAX_SEGMENT_BYTES} "
        f"characters, {_MAX_KEY_BYTES} in all",
        key=key,
    )


def check_prefix(prefix: str) -> str:
    """Return the prefix: empty, or whole segments with a slash after each."""
    if prefix == "":
        return prefix
    if prefix.endswith("/"):
        check_key(prefix[:-1])
        return prefix
    raise ObjectKeyInvalid(
        f"object prefix {prefix!r} must be empty or end with a slash, "
        "because not every store can list the keys that begin with half a segment",
        key=prefix,
    )


def _is_segment(segment: str) -> bool:
    return len(segment) <= _MAX_SEGMENT_BYTES and _SEGMENT.fullmatch(segment) is not None
