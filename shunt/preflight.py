"""Preflight: what is wrong with a dataset, found before anything runs."""

from collections import Counter
from dataclasses import dataclass, field

from shunt.errors import InputError
from shunt.row_error import RowError, RowErrorCode

MAX_EXAMPLES = 20
_SHOWN = 5


@dataclass(slots=True)
class PreflightReport:
    """Counts of one pass over the input, and the first mistakes with file and line."""

    files: list[str]
    input_format: str
    num_bytes: int = 0
    num_rows: int = 0
    num_prompt_bytes: int = 0
    max_output_tokens: int = 0
    """If every generation ran to its max_tokens."""
    errors: Counter[RowErrorCode] = field(default_factory=Counter[RowErrorCode])
    examples: list[RowError] = field(default_factory=list[RowError])

    @property
    def num_error_rows(self) -> int:
        return self.errors.total()

    @property
    def num_good_rows(self) -> int:
        return self.num_rows - self.num_error_rows

    def count(self, error: RowError) -> None:
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
