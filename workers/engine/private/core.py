"""Private names in the engine core's process: its entry, the scheduler and the executor."""

from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from types import SimpleNamespace
from typing import Any

from vllm.utils import network_utils
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs
from vllm.v1.engine.core import EngineCoreProc
from vllm.v1.executor.multiproc_executor import MultiprocExecutor, WorkerProc
from vllm.v1.request import Request, RequestStatus
from vllm.v1.structured_output import StructuredOutputManager

__all__ = [
    "AsyncScheduler",
    "EngineCoreOutput",
    "EngineCoreOutputs",
    "MultiprocExecutor",
    "Request",
    "Scheduler",
    "WorkerProc",
]
"""vLLM's own, which the scheduler and the executor of a pipeline build on."""

_DEATH_SEEN_S = 0.5
"""From the failure of a rank's neighbours to the end of its own connections."""

run_engine_core = EngineCoreProc.run_engine_core
"""Kept before `install_core_process` replaces the attribute."""


def install_core_process(run: Callable[..., None]) -> None:
    """Make engine cores start in `run`, an importable function that calls `run_engine_core`."""
    EngineCoreProc.run_engine_core = staticmethod(run)  # type: ignore[method-assign]


def place_rendezvous(directory: str) -> None:
    """Put the file over which the ranks meet into `directory`: killed ranks do not remove it.

    vLLM asks `tempfile` where it goes, in one function only.
    """
    setattr(network_utils, "tempfile", SimpleNamespace(gettempdir=lambda: directory))  # noqa: B010


def end_survivors_at_once() -> None:
    """Where a rank died, kill the others: they wait for it, and vLLM for them nine seconds."""
    patiently = MultiprocExecutor._ensure_worker_termination

    def end(worker_procs: list[BaseProcess]) -> None:
        died = not all(process.is_alive() for process in worker_procs)
        # A killed rank's connections break, others fail of it, and its sentinel is ready, while
        # the kernel still frees its memory and calls it alive.
        ending = wait([process.sentinel for process in worker_procs], _DEATH_SEEN_S)
        for process in worker_procs:
            if process.sentinel in ending:
                process.join()
                died = died or (process.exitcode or 0) < 0
        if died:
            for process in worker_procs:
                process.kill()
        patiently(worker_procs)

    MultiprocExecutor._ensure_worker_termination = staticmethod(end)


def hand_over_at_pause(hand_over: Callable[[Any], dict[int, EngineCoreOutputs]]) -> None:
    """Send what `hand_over` takes from the scheduler before a pause is answered."""
    pause = EngineCoreProc.pause_scheduler

    def pause_scheduler(self: EngineCoreProc, *args: Any, **options: Any) -> Any:
        for outputs in hand_over(self.scheduler).items():
            self.output_queue.put_nowait(outputs)
        return pause(self, *args, **options)

    EngineCoreProc.pause_scheduler = pause_scheduler  # type: ignore[method-assign]


def enter_as_preempted(request: Request, saved: list[int]) -> None:
    """Give `request` the state that preemption leaves: output kept, nothing computed."""
    request.append_output_token_ids(saved)
    # A preempted request has reported its prefill. Left set, a prefix-cache hit that reaches into
    # the saved output fails an assertion in Scheduler.schedule and ends the engine.
    request.prefill_stats = None


def waits_for_grammar(request: Request) -> bool:
    return request.status == RequestStatus.WAITING_FOR_STRUCTURED_OUTPUT_GRAMMAR


def replay_grammar(structured: StructuredOutputManager, request: Request, saved: list[int]) -> bool:
    """Advance the request's grammar over its saved tokens; whether it accepted all of them."""
    if structured.reasoner_cls is None or structured.enable_in_reasoning:
        return structured.accept_tokens(request, saved)
    # The gate that holds the grammar back while the model reasons looks at all tokens so far, so
    # it is shown them one by one, as it was when they were sampled.
    all_token_ids = request._all_token_ids
    del all_token_ids[request.num_prompt_tokens :]
    accepted = True
    for token_id in saved:
        all_token_ids.append(token_id)
        accepted = accepted and structured.accept_tokens(request, [token_id])
    return accepted


def refuse_saved_tokens(scheduler: Scheduler, request: Request) -> None:
    """End the request as one whose grammar failed to compile; the front end restarts it."""
    request.status = RequestStatus.WAITING_FOR_STRUCTURED_OUTPUT_GRAMMAR
    scheduler.grammar_compile_error_reqs.add(request.request_id)
