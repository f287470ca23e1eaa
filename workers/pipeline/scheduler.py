"""In the engine core of a pipeline: running requests are spread over the batches in flight.

vLLM's scheduler puts every request that can decode into the next batch. Once all of them have met
in one batch the others are empty, and the stages work one after the other. Here a batch takes its
share of the decoding requests, and what is left goes into the next.
"""

from collections.abc import Iterable
from typing import Any

from workers.engine.resume_scheduler import ResumeAsyncScheduler, ResumeScheduler


def defer_surplus(running: Iterable[Any], *, step: int, num_batches: int) -> None:
    """Let step `step` take its share only of the requests that decode.

    vLLM passes over a running request before its `next_decode_eligible_step`, which it uses itself
    to keep a request's steps apart. A request that waits here waits for one step.
    """
    decoding = [request for request in running if not request.is_prefill_chunk]
    ready = [r for r in decoding if r.next_decode_eligible_step <= step and _missing_tokens(r) > 0]
    for request in ready[-(-len(decoding) // num_batches) :]:
        request.next_decode_eligible_step = step + 1


def _missing_tokens(request: Any) -> int:
    """As `Scheduler.schedule` counts what it has to compute; 0 while it is in flight."""
    known = request.num_tokens_with_spec + request.num_output_placeholders
    return known - request.num_computed_tokens


class _Spreading:
    """Mixed in before each scheduler that resumes."""

    def schedule(self: Any, *args: Any, **options: Any) -> Any:
        defer_surplus(
            self.running,
            step=self.current_step + 1,
            num_batches=self.parallel_config.pipeline_parallel_size,
        )
        return super().schedule(*args, **options)  # type: ignore[misc]  # of the one beside it


class PipelineScheduler(_Spreading, ResumeScheduler):
    """For pipelines that schedule synchronously."""


class PipelineAsyncScheduler(_Spreading, ResumeAsyncScheduler):
    """For pipelines that schedule asynchronously, the default on GPU."""
