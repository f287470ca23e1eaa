"""A model's own sampling defaults under those of a job."""

from collections.abc import Mapping

from pydantic import JsonValue, ValidationError

from shunt.errors import JobError
from shunt.job.job import Job
from shunt.job.sampling import Sampling


def with_model_defaults(job: Job, defaults: Mapping[str, JsonValue]) -> Job:
    """The job whose sampling says what the model's defaults say, where it says nothing itself.

    Raises `JobError` where they are no sampling parameters.
    """
    if not defaults:
        return job
    own = job.sampling.model_dump(by_alias=True, exclude_unset=True)
    try:
        sampling = Sampling.model_validate({**defaults, **own})
    except ValidationError as error:
        problem = error.errors()[0]
        name = ".".join(map(str, problem["loc"])) or "sampling"
        raise JobError(
            f"the generation_config.json of {job.model.path}: {name}: {problem['msg']}; set "
            "sampling parameters of your own, or model.generation_config: vllm to leave it out"
        ) from error
    return job.model_copy(update={"sampling": sampling})


def told(job: Job, defaults: Mapping[str, JsonValue]) -> str:
    """What a person should know of them, in a sentence; empty: nothing."""
    own = job.sampling.model_fields_set
    shown = ", ".join(f"{name} {value}" for name, value in defaults.items() if name not in own)
    if not shown:
        return ""
    if job.model.generation_config == "auto":
        return (
            f"the model's own sampling defaults count where row and job say nothing: {shown} "
            "(model.generation_config: vllm leaves them out)"
        )
    return f"the model's own sampling defaults are not taken: {shown}"
