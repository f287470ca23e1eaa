"""A file that is one JSON array of rows, cut into its elements without reading all of it."""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|["\[\]{},]', re.DOTALL)
"""A text, the begin of one that goes on in the next block, or what cuts elements."""
_TEXT_OR_LINE_END = re.compile(rb'"(?:[^"\\]|\\.)*"|[\r\n]+', re.DOTALL)


class Element(NamedTuple):
    """One element in one line of text, and the line of the file in which it begins, from 1."""

    line: int
    text: bytes


def elements(blocks: Iterable[bytes]) -> Iterator[Element]:
    """The elements of the array. What is damaged comes out as an element that is no JSON, and so
    does what stands behind the end."""
    held, at, line, depth = b"", 0, 1, 0
    for block in blocks:
        held += block
        begin = 0
        for token in _TOKEN.finditer(held, at):
            sign = token[0]
            if sign == b'"':
                at = token.start()
                break
            at = token.end()
            opens, closes = sign in (b"[", b"{"), sign in (b"]", b"}")
            depth += opens - closes
            if (opens and depth == 1) or (closes and depth == 0) or (sign == b"," and depth == 1):
                if not opens:
                    yield from _element(held[begin : token.start()], line)
                line += held.count(b"\n", begin, at)
                begin = at
        held, at = held[begin:], at - begin
    yield from _element(held, line)


def _element(text: bytes, line: int) -> Iterator[Element]:
    inner = text.lstrip()
    line += text.count(b"\n", 0, len(text) - len(inner))
    inner = inner.rstrip()
    if b"\n" in inner or b"\r" in inner:
        inner = _TEXT_OR_LINE_END.sub(lambda m: m[0] if m[0][:1] == b'"' else b" ", inner)
    if inner:
        yield Element(line, inner)
