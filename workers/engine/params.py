"""From the job's words to vLLM's `SamplingParams`."""

from typing import Any

from vllm import SamplingParams
from vllm.sampling_params import (
    RepetitionDetectionParams,
    RequestOutputKind,
    StructuredOutputsParams,
)

from shunt.job.sampling import Sampling, StructuredOutput

_TRANSLATED = {"n", "adapter", "structured_outputs", "repetition_detection"}


def sampling_params(sampling: Sampling) -> SamplingParams:
    """What vLLM is given for one choice. Raises vLLM's `VLLMValidationError`."""
    fields: dict[str, Any] = sampling.model_dump(exclude=_TRANSLATED)
    if sampling.structured_outputs is not None:
        fields["structured_outputs"] = _structured_outputs(sampling.structured_outputs)
    if sampling.repetition_detection is not None:
        fields["repetition_detection"] = RepetitionDetectionParams(
            **sampling.repetition_detection.model_dump()
        )
    params = SamplingParams(
        n=1, output_kind=RequestOutputKind.FINAL_ONLY, flat_logprobs=True, **fields
    )
    params.seed = sampling.seed  # it takes -1 for none: choice 1 of seed -2
    return params


def _structured_outputs(structured: StructuredOutput) -> StructuredOutputsParams:
    return StructuredOutputsParams(**structured.model_dump(by_alias=True, exclude_none=True))
