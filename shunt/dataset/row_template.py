"""`input.template`: Jinja2 over a row's columns, bounded in size and steps.

A template is the user's own, but a slip of it must not stop a preflight of a million rows, or eat
the machine's memory: what makes text longer than its parts is checked before it is done.
"""

# Jinja leaves types of its tables open.
# pyright: reportUnknownMemberType=false

import re
from collections.abc import Mapping
from typing import Any

import jinja2
from jinja2 import sandbox
from jinja2.exceptions import SecurityError

from shunt.errors import JobError

MAX_CHARACTERS = 10_000_000
"""Of a rendered prompt, and of any text on the way to it: some 40 times the longest context."""
MAX_STEPS = 1_000_000
"""Numbers that the `range`s of one rendering may count, and pieces of text that it may make."""
_WIDTH = re.compile(r"\d{8,}")
"""A width in a format text that is over the bound."""
_WIDENING = ("center", "format", "indent", "batch", "truncate", "wordwrap")
"""Filters that take a width or a format text."""


class RowTemplate:
    """One template, compiled. Raises `JobError` where it does not compile."""

    def __init__(self, source: str) -> None:
        environment = _Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
        for name in _WIDENING:
            environment.filters[name] = _checked(environment.filters[name])
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise JobError(f"input.template: line {error.lineno}: {error.message}") from error
        except (SecurityError, ArithmeticError, MemoryError) as error:
            raise JobError(f"input.template: {error}") from error

    def render(self, row: Mapping[str, Any]) -> str:
        """The text for one row. Raises jinja2's `SecurityError` past a bound, and what else an
        expression can raise over a row that it was not made for."""
        counted = 0

        def bounded_range(*arguments: int) -> range:
            nonlocal counted
            numbers = sandbox.safe_range(*arguments)
            counted += len(numbers)
            if counted > MAX_STEPS:
                raise SecurityError(f"its ranges count over {MAX_STEPS:,} numbers")
            return numbers

        pieces: list[str] = []
        length = 0
        for piece in self._template.generate({"range": bounded_range, **row}):
            pieces.append(piece)
            length += len(piece)
            if length > MAX_CHARACTERS:
                raise SecurityError(f"the prompt has over {MAX_CHARACTERS:,} characters")
        return "".join(pieces)


class _Environment(sandbox.SandboxedEnvironment):
    """Looks at what would make long text or huge numbers before it is made."""

    intercepted_binops = frozenset(["*", "%", "**"])

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "*":
            _check_product(left, right)
        elif operator == "%" and isinstance(left, str):
            _check_format(left)
        elif operator == "**":
            _check_power(left, right)
        return super().call_binop(context, operator, left, right)

    def call(self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        # The sandbox wraps `format` of a text in a function of its own.
        method = getattr(__obj, "__wrapped__", __obj)
        if isinstance(owner := getattr(method, "__self__", None), str):
            _check_format(owner)
            _check_arguments(args, kwargs)
        return super().call(__context, __obj, *args, **kwargs)


def _checked(original: Any) -> Any:
    """A filter that refuses widths over the bound; the same to Jinja in every other way."""

    def bounded(*args: Any, **kwargs: Any) -> Any:
        for argument in args:
            if isinstance(argument, str):
                _check_format(argument)
        _check_arguments(args, kwargs)
        return original(*args, **kwargs)

    bounded.__dict__.update(original.__dict__)  # how Jinja marks what it hands over first
    return bounded


def _check_product(left: Any, right: Any) -> None:
    for sized, times in ((left, right), (right, left)):
        repeats = isinstance(sized, str | list | tuple) and isinstance(times, int)
        if repeats and len(sized) * times > MAX_CHARACTERS:  # pyright: ignore[reportUnknownArgumentType]
            raise SecurityError(f"it repeats a text {times:,} times")


def _check_power(base: Any, exponent: Any) -> None:
    whole = isinstance(base, int) and isinstance(exponent, int)
    if whole and base.bit_length() * exponent > MAX_CHARACTERS:
        raise SecurityError(f"it takes {base} to the power of {exponent:,}")


def _check_format(text: str) -> None:
    if (found := _WIDTH.search(text)) is not None and ("%" in text or "{" in text):
        raise SecurityError(f"it asks for a width of {found[0]}")


def _check_arguments(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    for argument in (*args, *kwargs.values()):
        if isinstance(argument, int) and argument > MAX_CHARACTERS:
            raise SecurityError(f"it asks for a width of {argument:,}")
