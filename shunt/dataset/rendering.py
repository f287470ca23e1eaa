"""From a prompt to token ids, through the model's own tokenizer and chat template."""

# Transformers types its tokenizers loosely.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import jinja2
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from shunt.dataset.chat_template import NO_VALUES, TEMPLATE_ERRORS, ChatTemplate
from shunt.dataset.conversation import conversation
from shunt.dataset.engine_limits import UNKNOWN, EngineLimits, engine_limits, of_text_model
from shunt.dataset.prompt import Prompt
from shunt.dataset.row_error import RowErrorCode
from shunt.dataset.token_text import TokenText
from shunt.errors import JobError, RequestRefused
from shunt.job.job import Job

TEMPLATE_MARGIN_TOKENS = 256
"""Room for a chat template's own tokens where a prompt's length is only bounded, not counted."""


class Tokenizer(Protocol):
    """What rendering needs of a tokenizer."""

    def encode(self, text: str) -> list[int]: ...

    def apply_chat_template(
        self, messages: Sequence[dict[str, Any]], values: Mapping[str, Any]
    ) -> list[int]: ...

    @property
    def begins_with(self) -> str:
        """The text of the token that `encode` puts before every prompt; empty: none."""
        ...

    @property
    def day(self) -> str:
        """What its chat template is told of the time; empty where it does not ask."""
        ...


@dataclass(frozen=True, slots=True)
class Renderer:
    """Renders prompts of one model; `max_model_len` is its context in tokens."""

    tokenizer: Tokenizer
    max_model_len: int
    limits: EngineLimits = UNKNOWN
    """What the engine takes of parameters and token ids."""

    def render(self, prompt: Prompt) -> tuple[int, ...]:
        """Token ids. Raises `RequestRefused` where the prompt is longer than the context, leaves
        no room for one token, or does not fit the chat template."""
        token_ids = self._token_ids(prompt)
        if not token_ids:
            raise RequestRefused(RowErrorCode.EMPTY_PROMPT, "the prompt has no token")
        if len(token_ids) + 1 > self.max_model_len:
            raise RequestRefused(
                RowErrorCode.CONTEXT_LENGTH,
                f"the prompt has {len(token_ids)} tokens; with room for one more that is over the "
                f"model's context of {self.max_model_len}",
            )
        return token_ids

    def may_overflow(self, prompt: Prompt) -> bool:
        """Whether only counting its tokens can tell that the prompt fits.

        A byte-level tokenizer makes at most one token of each UTF-8 byte.
        """
        if prompt.token_ids is not None:
            return True
        chat = (prompt.messages, *([prompt.template] if prompt.template else ()))
        text = prompt.text if prompt.text is not None else json.dumps(chat)
        return len(text.encode()) > self.surely_fitting_bytes

    @property
    def surely_fitting_bytes(self) -> int:
        """Text of so many UTF-8 bytes needs no counting of tokens."""
        return self.max_model_len - TEMPLATE_MARGIN_TOKENS - 1

    def _token_ids(self, prompt: Prompt) -> tuple[int, ...]:
        if prompt.token_ids is not None:
            return prompt.token_ids
        if prompt.messages is None:
            return tuple(self.tokenizer.encode(prompt.text or ""))
        try:
            return tuple(self.tokenizer.apply_chat_template(prompt.messages, prompt.template))
        except TEMPLATE_ERRORS as error:
            raise RequestRefused(
                RowErrorCode.INVALID_MESSAGES, f"the chat template refused the messages: {error}"
            ) from error


class HuggingFaceTokenizer:
    """The tokenizer of a model directory or hub id, as transformers loads it."""

    def __init__(
        self,
        path: str,
        revision: str | None = None,
        *,
        clock: datetime | None = None,
        add_special_tokens: bool = True,
    ) -> None:
        """`clock`: what time it is for a chat template that asks (`strftime_now`), always; without
        it, such a template is refused. `add_special_tokens`: around plain prompts."""
        self._path = path
        self._add_special_tokens = add_special_tokens
        self._revision = revision
        self._clock = clock

    def encode(self, text: str) -> list[int]:
        """With the special tokens that the model puts around a plain prompt, as vLLM does."""
        return self._tokenizer.encode(text, add_special_tokens=self._add_special_tokens)

    def encode_bare(self, text: str) -> list[int]:
        """Without special tokens around it."""
        return self._tokenizer.encode(text, add_special_tokens=False)

    @cached_property
    def token_text(self) -> TokenText:
        return TokenText(self._tokenizer)

    def apply_chat_template(
        self, messages: Sequence[dict[str, Any]], values: Mapping[str, Any] = NO_VALUES
    ) -> list[int]:
        rendered = self._chat_template.render(messages, values)
        return self._tokenizer.encode(rendered, add_special_tokens=False)

    @property
    def begins_with(self) -> str:
        bos = self._tokenizer.bos_token_id
        first = self.encode("a")[:1]
        return str(self._tokenizer.bos_token) if bos is not None and first == [bos] else ""

    @property
    def day(self) -> str:
        try:
            asks = self._chat_template.asks_for_time
        except jinja2.TemplateError:
            return ""
        return self._clock.date().isoformat() if asks and self._clock else ""

    @cached_property
    def _chat_template(self) -> ChatTemplate:
        try:
            source = self._tokenizer.get_chat_template()
        except ValueError as error:
            why = f"there is none: {self._path} is no chat model"
            raise jinja2.TemplateError(why) from error
        return ChatTemplate(source, self._tokenizer.special_tokens_map, self._clock)

    @cached_property
    def _tokenizer(self) -> Any:
        # Heavy: half a second and 100 MB that a command without prompts does not need.
        from transformers import AutoTokenizer

        try:
            return AutoTokenizer.from_pretrained(self._path, revision=self._revision)
        except (OSError, ValueError) as error:
            raise JobError(f"model.path: no tokenizer found in {self._path}: {error}") from error


class ByteTokenizer:
    """One token per UTF-8 byte, for the fake engine: no model is needed."""

    def encode(self, text: str) -> list[int]:
        return [1 + byte for byte in text.encode()]

    def apply_chat_template(
        self, messages: Sequence[dict[str, Any]], values: Mapping[str, Any] = NO_VALUES
    ) -> list[int]:
        shown = conversation(messages, "", as_parts=False)
        told = json.dumps(values) if values else ""
        return self.encode(told + "".join(f"<{m['role']}>{m['content']}" for m in shown))

    @property
    def begins_with(self) -> str:
        return ""

    @property
    def day(self) -> str:
        return ""


FAKE_MODEL_LEN = 8192


def renderer_of(job: Job, *, clock: datetime) -> Renderer:
    """What makes token ids of the job's prompts.

    `clock` is the instant at which the run was prepared: a chat template that asks for the date
    gives the same prompt on every node and on every day. Raises `JobError` as `renderer_for`.
    """
    renderer = renderer_for(
        job.model.path,
        revision=job.model.revision,
        max_model_len=job.model.max_model_len_tokens,
        fake=job.model.engine_kind == "fake",
        clock=clock,
        add_special_tokens=job.input.add_special_tokens,
    )
    if not isinstance(renderer.tokenizer, HuggingFaceTokenizer):
        return renderer
    return replace(renderer, limits=engine_limits(job, renderer.tokenizer.encode_bare))


def renderer_for(
    path: str,
    *,
    revision: str | None,
    max_model_len: int | None,
    fake: bool,
    clock: datetime | None = None,
    add_special_tokens: bool = True,
) -> Renderer:
    """The renderer of a model. Raises `JobError` when the model cannot be read."""
    if fake:
        return Renderer(ByteTokenizer(), max_model_len or FAKE_MODEL_LEN)
    tokenizer = HuggingFaceTokenizer(
        path, revision, clock=clock, add_special_tokens=add_special_tokens
    )
    return Renderer(tokenizer, max_model_len or context_length(path))


def require_model(path: str, revision: str | None) -> None:
    """Raises `JobError` unless the model is a local directory, or a hub id that was downloaded."""
    if Path(path).is_dir():
        if not (Path(path) / "config.json").is_file():
            raise JobError(f"model.path: {path} holds no config.json: it is no Hugging Face model")
        return
    try:
        found = try_to_load_from_cache(path, "config.json", revision=revision or "main")
    except HFValidationError:
        found = None
    if not isinstance(found, str):
        raise JobError(
            f"model.path: {path} is no directory here, and no model of that name is in the local "
            "cache of the Hugging Face hub; download it first, nothing is fetched during a run"
        )


def context_length(path: str) -> int:
    """`max_position_embeddings` of a local model. Raises `JobError` when it is not to be found."""
    config_path = Path(path) / "config.json"
    try:
        config = json.loads(config_path.read_text())
    except (OSError, ValueError) as error:
        raise JobError(
            f"model.path: {config_path} cannot be read ({error}); "
            "download the model, or set model.max_model_len_tokens"
        ) from error
    length = of_text_model(config, "max_position_embeddings")
    if not isinstance(length, int):
        raise JobError(
            f"{config_path}: has no max_position_embeddings; set model.max_model_len_tokens"
        )
    return length
