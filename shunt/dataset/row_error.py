"""The fixed taxonomy of row errors: a bad row is data, not an exception."""

from dataclasses import dataclass
from enum import StrEnum


class RowErrorCode(StrEnum):
    """Why a prompt ended as an error row. The values are stable: users filter on them."""

    MALFORMED_ROW = "malformed_row"
    """The line is not JSON, or not an object."""
    MISSING_PROMPT = "missing_prompt"
    """None of the prompt columns is present."""
    EMPTY_PROMPT = "empty_prompt"
    """The prompt has no text, no message or no token."""
    INVALID_MESSAGES = "invalid_messages"
    """`messages` is not a list of chat messages that the template can render."""
    INVALID_PARAMETER = "invalid_parameter"
    """A sampling parameter has a value outside its range."""
    UNSUPPORTED_PARAMETER = "unsupported_parameter"
    """A parameter is unknown, or known and not supported; it is never dropped silently."""
    INVALID_SCHEMA = "invalid_schema"
    """A structured-output schema, regex or grammar does not compile."""
    DUPLICATE_ID = "duplicate_id"
    """An earlier row has the same id."""
    MISSING_ID = "missing_id"
    """The id column is configured and this row has none."""
    CONTEXT_LENGTH = "context_length"
    """Prompt plus room for one token is longer than the model's context."""
    UNSUPPORTED_URL = "unsupported_url"
    """An OpenAI batch line names an endpoint other than the two supported ones."""
    BROKEN_STRUCTURE = "broken_structure"
    """The finished answer breaks its schema, pattern or choice; with `errors.broken_structure:
    error` alone."""
    ENGINE_REFUSED = "engine_refused"
    """The engine's own validation refused the request."""
    ENGINE_KILLED = "engine_killed"
    """The prompt was in flight alone when the engine died, or k times; it is isolated."""


@dataclass(frozen=True, slots=True)
class RowError:
    """One error row: a stable code for machines, a sentence for people."""

    code: RowErrorCode
    message: str
