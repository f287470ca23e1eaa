"""Sampling parameters of one prompt, under the names that vLLM's SamplingParams gives them."""

from typing import Annotated

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    JsonValue,
    field_validator,
    model_validator,
)

_STRUCTURE_OPTIONS = {
    "disable_any_whitespace",
    "disable_additional_properties",
    "whitespace_pattern",
}

_NUMBERS = (
    *("max_tokens", "min_tokens", "n", "temperature", "top_p", "top_k", "min_p", "seed"),
    *("presence_penalty", "frequency_penalty", "repetition_penalty", "stop_token_ids"),
    *("logprobs", "logprob_token_ids", "prompt_logprobs", "allowed_token_ids"),
    "thinking_token_budget",
)


class RepetitionDetection(BaseModel):
    """End a generation early once its tail is one token pattern over and over."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_pattern_size: Annotated[int, Field(ge=1)]
    """Longest pattern looked for, in tokens."""
    min_pattern_size: Annotated[int, Field(ge=1)] = 1
    min_count: Annotated[int, Field(ge=2)] = 3
    """Repetitions that end the generation."""

    @model_validator(mode="after")
    def _sizes(self) -> "RepetitionDetection":
        if self.min_pattern_size > self.max_pattern_size:
            raise ValueError("min_pattern_size must not be above max_pattern_size")
        return self


class StructuredOutput(BaseModel):
    """A constraint on the output text; exactly one of the fields is set."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    # Named as on the wire: `json` would shadow a method of pydantic's BaseModel.
    json_schema: dict[str, JsonValue] | str | None = Field(default=None, alias="json")
    """JSON schema, as an object or as JSON text."""
    regex: str | None = None
    """Regular expression that the whole output matches."""
    choice: list[str] | None = None
    """The output is one of these strings."""
    grammar: str | None = None
    """Context-free grammar in the EBNF dialect of the backend."""
    json_object: bool | None = None
    """Any JSON object."""
    structural_tag: str | None = None
    """Structural tag specification, as JSON text."""
    disable_any_whitespace: bool = False
    """JSON without optional whitespace."""
    disable_additional_properties: bool = False
    """`additionalProperties: false` for every object of the schema (guidance backend)."""
    whitespace_pattern: str | None = None
    """Regular expression for optional whitespace in JSON."""

    @model_validator(mode="after")
    def _exactly_one(self) -> "StructuredOutput":
        given = self.model_dump(exclude_none=True, exclude=_STRUCTURE_OPTIONS)
        if len(given) != 1:
            raise ValueError(
                "structured_outputs needs exactly one of json, regex, choice, grammar, "
                f"json_object, structural_tag; got {sorted(given) or 'none'}"
            )
        return self


class Sampling(BaseModel):
    """How one prompt is sampled: the job's defaults with the row's own values over them.

    Ranges are those of vLLM 0.32's `SamplingParams`. `None` means "vLLM's default".
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_tokens: Annotated[int, Field(ge=1)] | None = 256
    """Most output tokens of one generation; null: as many as the context has room for behind the
    prompt."""
    min_tokens: Annotated[int, Field(ge=0)] = 0
    n: Annotated[int, Field(ge=1, le=128)] = 1
    """Generations per prompt; choice c is sampled with seed + c, as in vLLM."""
    temperature: Annotated[float, Field(ge=0.0, le=2.0)] = 0.0
    """0 is greedy, which is the default here: batches are rerun, so they should repeat."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    top_k: Annotated[int, Field(ge=-1)] = 0
    """0 or -1: no limit."""
    min_p: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 128)] | None = None
    """Unset or -1 with temperature > 0: derived from run id, prompt and choice, so a rerun repeats.
    Choice c adds c; the sum must fit 64 bits, or torch refuses it and the engine ends."""
    stop: list[str] | str | None = None
    stop_token_ids: list[int] | None = None
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    presence_penalty: Annotated[float, Field(ge=-2.0, le=2.0)] = 0.0
    frequency_penalty: Annotated[float, Field(ge=-2.0, le=2.0)] = 0.0
    repetition_penalty: Annotated[FiniteFloat, Field(gt=0.0)] = 1.0
    logprobs: Annotated[int, Field(ge=0)] | None = None
    """Logprobs of the sampled token and of this many best tokens per position."""
    logprob_token_ids: Annotated[list[int], Field(max_length=128)] | None = None
    """Logprobs of exactly these tokens per position, instead of the best ones."""
    prompt_logprobs: Annotated[int, Field(ge=0)] | None = None
    logit_bias: dict[int, FiniteFloat] | None = None
    bad_words: list[str] | None = None
    allowed_token_ids: list[int] | None = None
    structured_outputs: StructuredOutput | None = None
    repetition_detection: RepetitionDetection | None = None
    thinking_token_budget: Annotated[int, Field(ge=0)] | None = None
    """Most tokens of reasoning; needs a reasoning parser in the engine."""
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    adapter: str | None = None
    """Name of a LoRA adapter of the job's `model.adapters`."""

    @field_validator(*_NUMBERS, mode="before")
    @classmethod
    def _no_number_in_disguise(cls, value: JsonValue) -> JsonValue:
        """Pydantic would take `true` and `"8"` for numbers."""
        for given in value if isinstance(value, list) else [value]:
            if isinstance(given, bool | str):
                raise ValueError(f"must be a number, not {given!r}")
        return value

    @model_validator(mode="after")
    def _lengths(self) -> "Sampling":
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise ValueError(
                f"min_tokens ({self.min_tokens}) must not be above max_tokens ({self.max_tokens})"
            )
        return self
