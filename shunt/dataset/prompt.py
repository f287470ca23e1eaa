"""One input row, as the worker sees it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import JsonValue

from shunt.dataset.row_error import RowError
from shunt.job.sampling import Sampling


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt with its sampling parameters; exactly one of text, messages, token_ids is set.

    A prompt with `error` is terminal already: preflight refused it. So is one that is reused.
    """

    index: int
    """0-based position in the input over all its files: unique in the run."""
    prompt_id: str
    sampling: Sampling
    text: str | None = None
    messages: tuple[dict[str, JsonValue], ...] | None = None
    template: Mapping[str, JsonValue] = field(default_factory=dict[str, JsonValue])
    """What the chat template is told beside the messages: `tools`, `enable_thinking`..."""
    reads_calls: bool = False
    """Whether calls of the `tools` of its template are to be read from the answer."""
    token_ids: tuple[int, ...] | None = None
    is_reused: bool = False
    """It takes the answer of another row, of an earlier run or of its own."""
    error: RowError | None = None

    @property
    def needs_no_engine(self) -> bool:
        """Whether its end is settled before any engine sees it."""
        return self.error is not None or self.is_reused

    @property
    def calls_of(self) -> Mapping[str, JsonValue] | None:
        """What its template is told, where calls of tools are to be read from the answer."""
        return self.template if self.reads_calls else None
