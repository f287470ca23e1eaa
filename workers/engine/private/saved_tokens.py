"""How saved tokens travel with a request, from the front end to the engine core and its ranks."""

from vllm import SamplingParams

SAVED = "shunt_saved_token_ids"
"""Their key in `SamplingParams.extra_args`, which vLLM hands on unchanged."""


def saved_token_ids(params: SamplingParams | None) -> list[int]:
    """The tokens with which a request arrived; empty for an ordinary one."""
    extra = params.extra_args if params is not None else None
    return extra.get(SAVED, []) if extra else []
