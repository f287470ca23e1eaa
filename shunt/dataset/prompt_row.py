"""From an input row to a prompt: which columns it is made of, and whether it can run."""

# Parsed JSON has no types before it is checked.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn, cast

from pydantic import ValidationError

from shunt.dataset.chat_template import TEMPLATE_ERRORS
from shunt.dataset.input_row import InputRow
from shunt.dataset.messages import pattern_of, read_messages
from shunt.dataset.openai_batch import DEFAULTS, translate
from shunt.dataset.plain_row import PlainRows
from shunt.dataset.prompt import Prompt
from shunt.dataset.prompt_id import made_id, own_id, says_nothing
from shunt.dataset.rendering import Renderer
from shunt.dataset.row_error import RowError, RowErrorCode
from shunt.dataset.row_template import RowTemplate
from shunt.dataset.shard import merged
from shunt.dataset.whole_text import is_whole, whole_text
from shunt.errors import RequestRefused
from shunt.job.job import Columns, Job
from shunt.job.sampling import Sampling
from shunt.structure.constraint import NoConstraint
from shunt.structure.grammars import Grammars

_SOURCES = ("prompt", "messages", "token_ids")
_MAX_TOKEN_ID = 2**31 - 1
"""Shards hold token ids in 32 bits, as engines do."""
_MAX_PATTERNS = 10_000
"""Of roles in chats. Chats of still other patterns are rendered one by one."""
_SHOWN_COLUMNS = 12
_DEFAULT_ID_COLUMNS = ("custom_id", "id")


@dataclass(frozen=True, slots=True)
class PromptRow:
    """A prompt, and the parameters that its row gave."""

    prompt: Prompt
    own_sampling: Mapping[str, Any]
    malformed: str | None = None
    """The text of a row that could not be read."""
    has_own_id: bool = True


class PromptReader:
    """Makes prompts of rows, by the job's columns, template and defaults.

    Raises `JobError` when the template does not compile.
    """

    def __init__(
        self,
        job: Job,
        renderer: Renderer,
        *,
        openai_batch: bool,
        grammars: Grammars | None = None,
        overruled: Collection[str] = (),
    ) -> None:
        """`overruled`: sampling parameters of which the job's own value counts, whatever a row
        says."""
        self._columns: Columns = job.input.columns
        self._as_chat = job.input.as_chat
        self._system = job.input.system
        self._defaults = job.sampling
        self._adapters = job.model.adapters
        self._renderer = renderer
        self._openai_batch = openai_batch
        self._reads_calls = job.model.tool_call_parser is not None
        self._grammars = grammars or Grammars()
        self._overruled = overruled
        template = job.input.template
        self._template = None if template is None else RowTemplate(template)
        self._id_columns = _id_columns(job.input.columns, openai_batch)
        self._needs_id = openai_batch or job.input.columns.id is not None
        limit = job.sampling.max_tokens or renderer.max_model_len
        self.default_output_tokens = limit * job.sampling.n
        self._begins_with = renderer.tokenizer.begins_with
        self._doubled = _Doubled()
        self.plain = self._plain_rows()
        self._patterns: set[tuple[object, ...]] = set()

    @property
    def notes(self) -> list[str]:
        """What is no mistake of a row, and should be known of the rows that were read."""
        if not self._doubled.count:
            return []
        return [
            f"{self._doubled.count} prompts begin with {self._begins_with!r}, which the tokenizer "
            f"puts there too: the model sees it twice (the first: {self._doubled.place}); if that "
            "is not wanted, set input.add_special_tokens: false"
        ]

    def read(self, row: InputRow, index: int) -> PromptRow:
        """The prompt of the row; what is wrong with it stands in `prompt.error`."""
        found = own_id(row.columns, self._id_columns)
        has_own = found is not None and is_whole(found)
        prompt_id = found if found is not None and has_own else made_id(index)
        if row.error is not None:
            error = replace(row.error, message=whole_text(row.error.message))
            prompt = Prompt(index, prompt_id, self._defaults, error=error)
            return PromptRow(prompt, {}, row.raw or "", has_own)
        try:
            if self._needs_id and found is None:
                why = f"{self._id_columns[0]}: is missing{_instead(row.columns)}"
                _refuse(RowErrorCode.MISSING_ID, why)
            _require_whole("id", found)
            prompt, own = self._prompt(row, index, prompt_id)
        except RequestRefused as refusal:
            message = whole_text(f"{row.place}: {refusal}")
            error = RowError(RowErrorCode(refusal.code), message)
            prompt = Prompt(index, prompt_id, self._defaults, error=error)
            return PromptRow(prompt, {}, has_own_id=has_own)
        return PromptRow(prompt, own, has_own_id=has_own)

    def _plain_rows(self) -> PlainRows | None:
        """None where every row has to be looked at closely."""
        if self._openai_batch or self._template is not None or self._as_chat:
            return None
        try:
            structure = self._sampling({}).structured_outputs
            if structure is not None and self._grammars.is_doubtful(structure):
                return None
        except (RequestRefused, NoConstraint):
            return None
        names = self._columns
        return PlainRows(
            id_columns=self._id_columns,
            needs_id=self._needs_id,
            prompt=names.prompt,
            others=(names.messages, names.token_ids, names.sampling),
            max_prompt_bytes=self._renderer.surely_fitting_bytes,
            begins_with=self._begins_with,
        )

    def _prompt(
        self, row: InputRow, index: int, prompt_id: str
    ) -> tuple[Prompt, Mapping[str, Any]]:
        columns, own = self._columns_and_sampling(row)
        own = {name: value for name, value in own.items() if name not in self._overruled}
        sampling = self._sampling(own)
        if sampling.structured_outputs is not None:
            try:
                self._grammars.admit(index, row.place, sampling.structured_outputs)
            except NoConstraint as problem:
                _refuse(RowErrorCode.INVALID_SCHEMA, str(problem))
        prompt = Prompt(index, prompt_id, sampling, **self._source(columns, row.columns))
        for name, part in ("prompt", prompt.text), ("messages", prompt.messages), ("sampling", own):
            _require_whole(name, part)
        if prompt.token_ids and (why := self._renderer.limits.refused_ids(prompt.token_ids)):
            _refuse(RowErrorCode.INVALID_PARAMETER, why)
        if self._begins_with and (prompt.text or "").startswith(self._begins_with):
            self._doubled.saw(index, row.place)
        if self._renderer.may_overflow(prompt) or self._is_new_pattern(prompt):
            self._renderer.render(prompt)
            self._know_pattern(prompt)
        return prompt, own

    def _is_new_pattern(self, prompt: Prompt) -> bool:
        """Whether no chat of these roles has been rendered: a template may refuse them."""
        messages = prompt.messages
        return messages is not None and _pattern(prompt) not in self._patterns

    def _know_pattern(self, prompt: Prompt) -> None:
        if prompt.messages is not None and len(self._patterns) < _MAX_PATTERNS:
            self._patterns.add(_pattern(prompt))

    def _columns_and_sampling(self, row: InputRow) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        columns = row.columns
        if self._openai_batch:
            return self._translated(columns)
        names = self._columns
        renamed = {
            "prompt": columns.get(names.prompt),
            "messages": columns.get(names.messages),
            "token_ids": columns.get(names.token_ids),
        }
        cell = columns.get(names.sampling)
        own = _from_json_text(cell, names.sampling)
        own = {} if says_nothing(own) else own
        if not isinstance(own, dict):
            _refuse(RowErrorCode.INVALID_PARAMETER, f"{names.sampling}: must be an object")
        given = cast("dict[str, Any]", own)
        # Parquet structs hold every field of every row; null means "not given". In JSON, a limit
        # of null was written down.
        is_json = row.raw is not None or isinstance(cell, str)
        kept = {"max_tokens"} if is_json else set[str]()
        return renamed, {n: value for n, value in given.items() if value is not None or n in kept}

    def _translated(self, line: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """A request line; its `model` may name an adapter, as in vLLM's server."""
        columns, own = translate(line, reads_calls=self._reads_calls)
        for name, value in DEFAULTS[line["url"]].items():
            if name not in self._defaults.model_fields_set:
                own.setdefault(name, value)
        model = line["body"].get("model")
        known = isinstance(model, str) and model in self._adapters
        return columns, own | {"adapter": model} if known else own

    def _source(self, columns: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
        """The one of text, messages, token_ids that the prompt is."""
        if self._template is not None:
            return self._text(self._rendered(row))
        # An empty cell of a tabular file gives nothing, where another column gives a prompt.
        given = [name for name in _SOURCES if not says_nothing(columns.get(name))]
        if len(given) > 1:
            _refuse(RowErrorCode.INVALID_PARAMETER, f"has {' and '.join(given)}; give one of them")
        if "token_ids" in given:
            return {"token_ids": _token_ids(_from_json_text(columns["token_ids"], "token_ids"))}
        if "messages" in given:
            told = {name: columns[name] for name in ("template", "reads_calls") if name in columns}
            return {"messages": read_messages(columns["messages"]), **told}
        text = columns.get("prompt")
        if text == "" or not says_nothing(text):
            return self._text(text)
        names = self._columns
        wanted = (
            "messages or prompt"
            if self._openai_batch
            else (f"{names.prompt}, {names.messages} or {names.token_ids}")
        )
        _refuse(RowErrorCode.MISSING_PROMPT, f"needs a column {wanted}{_instead(row)}")

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
        except TEMPLATE_ERRORS as error:
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
        if why := self._renderer.limits.refused(sampling):
            _refuse(RowErrorCode.INVALID_PARAMETER, why)
        return sampling


def _instead(columns: Mapping[str, Any]) -> str:
    shown = ", ".join(list(columns)[:_SHOWN_COLUMNS])
    more = ", ..." if len(columns) > _SHOWN_COLUMNS else ""
    return f"; the row has {shown}{more}" if shown else ""


def _require_whole(name: str, part: Any) -> None:
    """Refuses half of a surrogate pair in what the engine would get: it is part of no text. Readers
    make such halves of bytes that are no UTF-8."""
    if not part:
        return
    if not is_whole(part if isinstance(part, str) else json.dumps(part, ensure_ascii=False)):
        why = "holds bytes that are no UTF-8, or half of a surrogate pair: that is no text"
        _refuse(RowErrorCode.MALFORMED_ROW, f"{name}: {why}")


@dataclass(slots=True)
class _Doubled:
    """Prompts with two tokens of a kind in front. Rows come in order, and some of them again."""

    count: int = 0
    place: str = ""
    """Of the first."""
    last: int = -1

    def saw(self, index: int, place: str) -> None:
        if index > self.last:
            self.count, self.last, self.place = self.count + 1, index, self.place or place


def _pattern(prompt: Prompt) -> tuple[object, ...]:
    """What of a chat decides whether a template takes it."""
    assert prompt.messages is not None
    return (*pattern_of(prompt.messages), *sorted(prompt.template))


def _id_columns(columns: Columns, openai_batch: bool) -> tuple[str, ...]:
    if columns.id is not None:
        return (columns.id,)
    return ("custom_id",) if openai_batch else _DEFAULT_ID_COLUMNS


def _from_json_text(value: Any, name: str) -> Any:
    """Tabular files hold lists and objects as JSON text."""
    if not isinstance(value, str):
        return value
    if not value:
        return None
    try:
        return json.loads(value)
    except ValueError:
        _refuse(RowErrorCode.INVALID_PARAMETER, f"{name}: is text, but not JSON")


def _token_ids(token_ids: Any) -> tuple[int, ...]:
    ids = cast("list[Any]", token_ids) if isinstance(token_ids, list) else None
    if ids is None or not all(type(i) is int and 0 <= i <= _MAX_TOKEN_ID for i in ids):
        _refuse(RowErrorCode.MISSING_PROMPT, "token_ids: must be a list of 32-bit integers from 0")
    if not ids:
        _refuse(RowErrorCode.EMPTY_PROMPT, "token_ids: is empty")
    return tuple(ids)


def _refuse(code: RowErrorCode, message: str) -> NoReturn:
    raise RequestRefused(code, message)
