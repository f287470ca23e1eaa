"""From an input row to a prompt: which columns it is made of, and whether it can run."""

# Parsed JSON has no types before it is checked.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, cast

import jinja2
import jinja2.sandbox
from pydantic import ValidationError

from shunt.dataset.input_row import InputRow
from shunt.dataset.openai_batch import translate
from shunt.dataset.structure import check_structure
from shunt.errors import JobError, RequestRefused
from shunt.job import Columns, Job
from shunt.prompt import Prompt
from shunt.rendering import Renderer
from shunt.row_error import RowError, RowErrorCode
from shunt.sampling import Sampling
from shunt.shard import merged

_ROLES = {"system", "user", "assistant", "developer", "tool"}
_SOURCES = ("prompt", "messages", "token_ids")
_DEFAULT_ID_COLUMNS = ("custom_id", "id")


@dataclass(frozen=True, slots=True)
class PromptRow:
    """A prompt, and the parameters that its row gave."""

    prompt: Prompt
    own_sampling: Mapping[str, Any]
    has_own_id: bool


class PromptReader:
    """Makes prompts of rows, by the job's columns, template and defaults.

    Raises `JobError` when the template does not compile.
    """

    def __init__(self, job: Job, renderer: Renderer, *, openai_batch: bool) -> None:
        self._columns: Columns = job.input.columns
        self._as_chat = job.input.as_chat
        self._system = job.input.system
        self._defaults = job.sampling
        self._adapters = job.model.adapters
        self._renderer = renderer
        self._openai_batch = openai_batch
        self._template = _compiled(job.input.template)

    def read(self, row: InputRow, index: int) -> PromptRow:
        """The prompt of the row; what is wrong with it stands in `prompt.error`."""
        prompt_id, has_own_id = f"row-{index:08d}", False
        try:
            if row.error is not None:
                raise RequestRefused(row.error.code, row.error.message)
            own_id = self._own_id(row.columns)
            if own_id is not None:
                prompt_id, has_own_id = own_id, True
            prompt, own = self._prompt(row, index, prompt_id)
        except RequestRefused as refusal:
            message = str(refusal)
            if not message.startswith(row.place):
                message = f"{row.place}: {message}"
            error = RowError(RowErrorCode(refusal.code), message)
            return PromptRow(Prompt(index, prompt_id, self._defaults, error=error), {}, has_own_id)
        return PromptRow(prompt, own, has_own_id)

    def _own_id(self, columns: Mapping[str, Any]) -> str | None:
        if self._columns.id is None and not self._openai_batch:
            given = (columns.get(name) for name in _DEFAULT_ID_COLUMNS)
            return next((str(value) for value in given if value not in (None, "")), None)
        name = self._columns.id or "custom_id"
        value = columns.get(name)
        if value is None or value == "":
            _refuse(RowErrorCode.MISSING_ID, f"{name}: is missing")
        return str(value)

    def _prompt(
        self, row: InputRow, index: int, prompt_id: str
    ) -> tuple[Prompt, Mapping[str, Any]]:
        columns, own = self._columns_and_sampling(row.columns)
        sampling = self._sampling(own)
        prompt = Prompt(index, prompt_id, sampling, **self._source(columns, row.columns))
        if self._renderer.may_overflow(prompt):
            self._renderer.render(prompt)
        return prompt, own

    def _columns_and_sampling(
        self, columns: Mapping[str, Any]
    ) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        if self._openai_batch:
            return translate(columns)
        names = self._columns
        renamed = {
            "prompt": columns.get(names.prompt),
            "messages": columns.get(names.messages),
            "token_ids": columns.get(names.token_ids),
        }
        own = _from_json_text(columns.get(names.sampling), names.sampling) or {}
        if not isinstance(own, dict):
            _refuse(RowErrorCode.INVALID_PARAMETER, f"{names.sampling}: must be an object")
        given = cast("dict[str, Any]", own)
        # Parquet structs hold every field of every row; null means "not given".
        return renamed, {name: value for name, value in given.items() if value is not None}

    def _source(self, columns: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
        """The one of text, messages, token_ids that the prompt is."""
        if self._template is not None:
            return self._text(self._rendered(row))
        given = [name for name in _SOURCES if columns.get(name) is not None]
        if len(given) > 1:
            _refuse(RowErrorCode.INVALID_PARAMETER, f"has {' and '.join(given)}; give one of them")
        if (token_ids := columns.get("token_ids")) is not None:
            return {"token_ids": _token_ids(_from_json_text(token_ids, "token_ids"))}
        if (messages := columns.get("messages")) is not None:
            return {"messages": _messages(messages)}
        if (text := columns.get("prompt")) is not None:
            return self._text(text)
        names = self._columns
        wanted = (
            "messages or prompt"
            if self._openai_batch
            else (f"{names.prompt}, {names.messages} or {names.token_ids}")
        )
        _refuse(RowErrorCode.MISSING_PROMPT, f"needs a column {wanted}")

    def _text(self, text: Any) -> dict[str, Any]:
        if not isinstance(text, str):
            _refuse(RowErrorCode.MISSING_PROMPT, f"{self._columns.prompt}: must be text")
        if not text.strip():
            _refuse(RowErrorCode.EMPTY_PROMPT, "the prompt is empty")
        if not self._as_chat:
            return {"text": text}
        system = [] if self._system is None else [{"role": "system", "content": self._system}]
        return {"messages": (*system, {"role": "user", "content": text})}

    def _rendered(self, row: Mapping[str, Any]) -> str:
        assert self._template is not None
        try:
            return self._template.render(row)
        except (jinja2.TemplateError, TypeError) as error:
            _refuse(RowErrorCode.MISSING_PROMPT, f"input.template: {error}")

    def _sampling(self, own: Mapping[str, Any]) -> Sampling:
        try:
            sampling = merged(self._defaults, dict(own))
        except ValidationError as error:
            problem = error.errors()[0]
            name = ".".join(str(part) for part in problem["loc"]) or "sampling"
            if problem["type"] == "extra_forbidden":
                _refuse(RowErrorCode.UNSUPPORTED_PARAMETER, f"{name}: is not supported")
            code = RowErrorCode.INVALID_PARAMETER
            if name.startswith("structured_outputs"):
                code = RowErrorCode.INVALID_SCHEMA
            _refuse(code, f"{name}: {problem['msg']}")
        if sampling.adapter is not None and sampling.adapter not in self._adapters:
            known = ", ".join(sorted(self._adapters)) or "none"
            _refuse(
                RowErrorCode.INVALID_PARAMETER,
                f"adapter: {sampling.adapter!r} is not in model.adapters (there: {known})",
            )
        if sampling.structured_outputs is not None:
            check_structure(sampling.structured_outputs)
        return sampling


def _compiled(template: str | None) -> jinja2.Template | None:
    if template is None:
        return None
    environment = jinja2.sandbox.SandboxedEnvironment(
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    try:
        return environment.from_string(template)
    except jinja2.TemplateSyntaxError as error:
        raise JobError(f"input.template: line {error.lineno}: {error.message}") from error


def _from_json_text(value: Any, name: str) -> Any:
    """Tabular files hold lists and objects as JSON text."""
    if not isinstance(value, str) or not value:
        return value or None
    try:
        return json.loads(value)
    except ValueError:
        _refuse(RowErrorCode.INVALID_PARAMETER, f"{name}: is text, but not JSON")


def _messages(given: Any) -> tuple[dict[str, Any], ...]:
    messages = given
    if isinstance(given, str):  # tabular files hold lists as JSON text
        try:
            messages = json.loads(given)
        except ValueError:
            _refuse(RowErrorCode.INVALID_MESSAGES, "messages: is text, but not a JSON list")
    if not isinstance(messages, list):
        _refuse(RowErrorCode.INVALID_MESSAGES, "messages: must be a list")
    if not messages:
        _refuse(RowErrorCode.EMPTY_PROMPT, "messages: is empty")
    checked: list[dict[str, Any]] = []
    for number, message in enumerate(cast("list[Any]", messages)):
        if not isinstance(message, dict):
            _refuse(RowErrorCode.INVALID_MESSAGES, f"messages[{number}]: must be an object")
        given = {k: v for k, v in cast("dict[str, Any]", message).items() if v is not None}
        if given.get("role") not in _ROLES:
            _refuse(
                RowErrorCode.INVALID_MESSAGES,
                f"messages[{number}].role: must be one of {', '.join(sorted(_ROLES))}",
            )
        checked.append({**given, "content": _content(given.get("content"), number)})
    if not any(str(message["content"]).strip() for message in checked):
        _refuse(RowErrorCode.EMPTY_PROMPT, "messages: have no text")
    return tuple(checked)


def _content(content: Any, number: int) -> str:
    """Text, from text or from a list of text parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = cast("list[Any]", content)
        if all(isinstance(p, dict) and isinstance(p.get("text"), str) for p in parts):
            return "".join(part["text"] for part in parts)
        _refuse(
            RowErrorCode.UNSUPPORTED_PARAMETER,
            f"messages[{number}].content: only text parts are supported",
        )
    _refuse(RowErrorCode.INVALID_MESSAGES, f"messages[{number}].content: must be text")


def _token_ids(token_ids: Any) -> tuple[int, ...]:
    ids = cast("list[Any]", token_ids) if isinstance(token_ids, list) else None
    if ids is None or any(not isinstance(i, int) or isinstance(i, bool) or i < 0 for i in ids):
        _refuse(RowErrorCode.MISSING_PROMPT, "token_ids: must be a list of non-negative integers")
    if not ids:
        _refuse(RowErrorCode.EMPTY_PROMPT, "token_ids: is empty")
    return tuple(ids)


def _refuse(code: RowErrorCode, message: str) -> NoReturn:
    raise RequestRefused(code, message)
