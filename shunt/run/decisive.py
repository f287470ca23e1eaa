"""What of a job's own words decides results: a run that stands goes on with the same only."""

from shunt.job.job import Job
from shunt.run.model_identity import deciding_extra


def decisive(job: Job) -> dict[str, object]:
    """Equal for jobs that are one run over the same files and model.

    `shunt.run.run_id.run_id_of` hashes the same, with what the files hold. Here the whole input
    counts, as a run that stands does not look at it again.
    """
    model = job.model
    return {
        "name": job.name,
        "input": job.input,
        "sampling": job.sampling,
        "shard_prompts": job.shard_prompts,
        "reuse": job.reuse,
        "broken_structure": job.errors.broken_structure,
        "dtype": model.dtype,
        "revision": model.revision,
        "generation_config": model.generation_config,
        "max_model_len": model.max_model_len_tokens,
        "adapters": model.adapters,
        "engine_kind": model.engine_kind,
        "tool_call_parser": model.tool_call_parser,
        "extra": deciding_extra(model),
    }
