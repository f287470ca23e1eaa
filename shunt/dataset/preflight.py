"""Preflight: what is wrong with a dataset, found before anything runs."""

from collections import Counter
from dataclasses import dataclass, field

from shunt.dataset.prompt import Prompt
from shunt.dataset.row_error import RowError, RowErrorCode
from shunt.errors import InputError

MAX_EXAMPLES = 20
_SHOWN = 5
_BYTES_PER_TOKEN = 4  # of English text, roughly: https://help.openai.com/articles/4936856


@dataclass(slots=True)
class PreflightReport:
    """Counts of one pass over the input, and the first mistakes with file and line."""

    files: list[str]
    input_format: str
    context_tokens: int = 0
    """What prompt and answer may have together: the most that a row without max_tokens makes."""
    num_bytes: int = 0
    num_rows: int = 0
    num_prompt_bytes: int = 0
    max_output_tokens: int = 0
    """If every generation ran to its max_tokens."""
    errors: Counter[RowErrorCode] = field(default_factory=Counter[RowErrorCode])
    examples: list[RowError] = field(default_factory=list[RowError])
    structured: bool = False
    """Some rows have structured outputs."""
    grammar_backend: str = ""
    """Of the engine, where rows have structured outputs; empty: none, or the one the job names."""
    notes: list[str] = field(default_factory=list[str])
    """What a person should know before the run, in sentences."""

    @property
    def num_error_rows(self) -> int:
        return self.errors.total()

    @property
    def num_good_rows(self) -> int:
        return self.num_rows - self.num_error_rows

    def count_plain(self, count: int, *, num_bytes: int, max_output_tokens: int) -> None:
        """Good rows of that much text together, and of so many output tokens each."""
        self.num_rows += count
        self.num_prompt_bytes += num_bytes
        self.max_output_tokens += count * max_output_tokens

    def count_row(self, prompt: Prompt, num_bytes: int) -> None:
        """A row, good or bad, of that much text or of token ids."""
        self.num_rows += 1
        if prompt.error is not None:
            self.count_error(prompt.error)
            return
        self.num_prompt_bytes += num_bytes or _BYTES_PER_TOKEN * len(prompt.token_ids or ())
        limit = prompt.sampling.max_tokens or self.context_tokens
        self.max_output_tokens += limit * prompt.sampling.n

    def count_error(self, error: RowError) -> None:
        self.errors[error.code] += 1
        if len(self.examples) < MAX_EXAMPLES:
            self.examples.append(error)

    def require_clean(self) -> None:
        """What `strict` means. Raises `InputError` with the first mistakes."""
        if not self.num_error_rows:
            return
        shown = "\n".join(f"  {e.code}: {e.message}" for e in self.examples[:_SHOWN])
        more = self.num_error_rows - min(_SHOWN, len(self.examples))
        rest = f"\n  and {more} more" if more > 0 else ""
        raise InputError(
            f"{self.num_error_rows} of {self.num_rows} rows are bad, and strict mode refuses to "
            f"start:\n{shown}{rest}"
        )
