"""A model's chat template, rendered in a sandbox as transformers renders it.

By our own hands, as transformers hands a template the machine's clock, and takes no other from 5.20
on: a resumed row must get the prompt that it had.
"""

# Jinja leaves types of its tables open.
# pyright: reportUnknownMemberType=false

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from shunt.dataset.conversation import conversation, wants_parts

TEMPLATE_ERRORS: tuple[type[Exception], ...] = (
    jinja2.TemplateError,
    ArithmeticError,  # also of a range that the sandbox refuses
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What an expression of a template can raise over a row that it was not made for."""


NO_VALUES: Mapping[str, Any] = {}


class _Generation(Extension):
    """`{% generation %}`: marks an answer for training; here it is only its body."""

    tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """One template, compiled. Raises jinja2's `TemplateSyntaxError` where it does not compile."""

    def __init__(
        self, source: str, special_tokens: Mapping[str, Any], clock: datetime | None
    ) -> None:
        self._source = source
        self._clock = clock
        self._special_tokens = dict(special_tokens)
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_Generation, "jinja2.ext.loopcontrols"],
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = self._strftime_now
        self._template = environment.from_string(source)
        self._wants_parts = wants_parts(environment.parse(source))

    def render(
        self, messages: Sequence[Mapping[str, Any]], values: Mapping[str, Any] = NO_VALUES
    ) -> str:
        """The prompt, up to where the answer begins. `values` are told to the template beside the
        messages. Raises one of `TEMPLATE_ERRORS`."""
        return self._template.render(
            messages=conversation(messages, self._source, as_parts=self._wants_parts),
            **{
                **self._special_tokens,
                "tools": None,
                "documents": None,
                **values,
                "add_generation_prompt": True,
            },
        )

    @property
    def asks_for_time(self) -> bool:
        return "strftime_now" in self._source

    def _strftime_now(self, form: str) -> str:
        if self._clock is None:
            raise jinja2.TemplateError("it asks for the time, and no clock was given")
        return self._clock.strftime(form)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Without Jinja's escapes for HTML, as templates of models expect."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)
