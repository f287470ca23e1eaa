"""Every name of vLLM that is not public and that resuming relies on, with a check of all of them.

Nothing else under `workers/` imports from `vllm.v1` (tests/workers/engine/test_vllm_private.py
walks the imports). On a vLLM where this module cannot be imported, or where `problems()` finds
something, the engine runs without the hooks and restarts moved rows: slower, never wrong.

A request that carries saved tokens has them in `SamplingParams.extra_args[SAVED]`, which travels
unchanged from the front end to the engine core and its workers.
"""

import functools
import inspect
import threading
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
import vllm
from vllm import SamplingParams
from vllm.distributed import parallel_state
from vllm.logprobs import FlatLogprobs
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.core.sched.utils import check_stop
from vllm.v1.engine import EngineCoreRequest
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.core import EngineCoreProc
from vllm.v1.engine.core_client import AsyncMPClient, MPClient
from vllm.v1.engine.detokenizer import IncrementalDetokenizer
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.engine.logprobs import LogprobsProcessor
from vllm.v1.engine.output_processor import OutputProcessor, RequestState
from vllm.v1.executor.multiproc_executor import MultiprocExecutor, WorkerProc
from vllm.v1.outputs import LogprobsLists
from vllm.v1.request import Request, RequestStatus
from vllm.v1.sample.sampler import Sampler
from vllm.v1.structured_output import StructuredOutputManager
from vllm.v1.worker.gpu.sample import logit_bias as v2_logit_bias
from vllm.v1.worker.gpu_input_batch import CachedRequestState

from shunt.checkpoint.generation import TokenLogprobs

__all__ = ["AsyncScheduler", "MultiprocExecutor", "Request", "Sampler", "Scheduler", "WorkerProc"]
"""vLLM's own, which the modules of each process import from here."""

PINNED_VERSION = "0.32.0"

SAVED = "shunt_saved_token_ids"

MAX_ALLOWED_TOKEN_IDS_V2 = v2_logit_bias.MAX_NUM_ALLOWED_TOKEN_IDS
MAX_LOGIT_BIAS_V2 = v2_logit_bias.MAX_NUM_LOGIT_BIAS_TOKENS
MAX_STOP_TOKEN_IDS_V2 = v2_logit_bias.MAX_NUM_STOP_TOKEN_IDS
"""Above these, model runner V2 raises in the worker."""

run_engine_core = EngineCoreProc.run_engine_core
"""Kept before `install_core_process` replaces the attribute."""


# ---- the check ------------------------------------------------------------------------------

_SIGNATURES: tuple[tuple[Callable[..., Any], str], ...] = (
    (Scheduler.add_request, "self request"),
    (Scheduler._handle_blocked_waiting_request, "self request"),
    (Scheduler.schedule, "self throttle_prefills"),
    (Request.append_output_token_ids, "self token_ids"),
    (StructuredOutputManager.accept_tokens, "self request new_token_ids"),
    (OutputProcessor.add_request, "self request prompt parent_req request_index queue"),
    (OutputProcessor.propagate_error, "self e"),
    (AsyncMPClient._ensure_output_queue_task, "self"),
    (LogprobsProcessor._update_sample_logprobs, "self logprobs_lists"),
    (IncrementalDetokenizer.from_new_request, "tokenizer request"),
    (IncrementalDetokenizer.update, "self new_token_ids stop_terminated"),
    (check_stop, "request max_model_len"),
    (EngineCoreProc.run_engine_core, "args dp_rank local_dp_rank kwargs"),
    (CachedRequestState.__post_init__, "self"),
    (
        Sampler.forward,
        "self logits sampling_metadata predict_bonus_token logprobs_mode_override",
    ),
    (Sampler.gather_specific_token_logprobs, "self logprobs logprob_token_ids sampled"),
    (Sampler.gather_logprobs, "logprobs num_logprobs token_ids"),
    (MultiprocExecutor._init_executor, "self"),
    (MultiprocExecutor._get_parallel_sizes, "self"),
    (MultiprocExecutor._get_output_rank, "self"),
    (MultiprocExecutor._is_driver_worker, "self rank"),
    (MultiprocExecutor.shutdown, "self"),
    (MultiprocExecutor._ensure_worker_termination, "worker_procs"),
    (MultiprocExecutor.execute_model, "self scheduler_output non_block"),
    (MultiprocExecutor.sample_tokens, "self grammar_output non_block"),
    (
        WorkerProc.make_worker_process,
        "vllm_config local_rank rank distributed_init_method input_shm_handle "
        "shared_worker_lock is_driver_worker inherited_fds",
    ),
    (
        parallel_state.initialize_model_parallel,
        "tensor_model_parallel_size pipeline_model_parallel_size "
        "prefill_context_model_parallel_size decode_context_model_parallel_size backend",
    ),
    (parallel_state._split_tensor_dict, "tensor_dict"),
)
"""Functions that are called or wrapped, with the parameter names they must have."""

_FIELDS: tuple[tuple[type, str], ...] = (
    (CachedRequestState, "sampling_params generator output_token_ids num_computed_tokens"),
    (LogprobsProcessor, "tokenizer logprobs prompt_logprobs num_logprobs cumulative_logprob"),
    (FlatLogprobs, "start_indices end_indices token_ids logprobs ranks"),
)
"""Dataclasses whose fields are read or written."""

_INSTANCE_ATTRIBUTES: tuple[tuple[type, str], ...] = (
    (Request, "prefill_stats status structured_output_request _all_token_ids num_prompt_tokens"),
    (Request, "next_decode_eligible_step is_prefill_chunk num_output_placeholders"),
    (RequestState, "detokenizer logprobs_processor num_cached_tokens external_req_id"),
    (Scheduler, "grammar_compile_error_reqs structured_output_manager requests"),
    (Scheduler, "current_step running parallel_config"),
    (OutputProcessor, "request_states"),
    (MPClient, "utility_results resources"),
    (StructuredOutputManager, "reasoner_cls enable_in_reasoning"),
    (AsyncLLM, "output_processor input_processor renderer vllm_config output_handler"),
)
"""Attributes that `__init__` sets, read or written here."""


def problems() -> list[str]:
    """Why the hooks must not be used with the vLLM that is installed; empty when they may."""
    found: list[str] = []
    if vllm.__version__.split("+")[0] != PINNED_VERSION:
        found.append(f"vLLM is {vllm.__version__}, not {PINNED_VERSION}")
    for function, expected in _SIGNATURES:
        names = " ".join(inspect.signature(function).parameters)
        if names != expected:
            found.append(f"{function.__qualname__} takes ({names}), not ({expected})")
    for owner, expected in _FIELDS:
        present = {field.name for field in fields(owner)} if is_dataclass(owner) else set()
        missing = set(expected.split()) - present
        found += [f"{owner.__name__} has no field {name}" for name in sorted(missing)]
    for owner, expected in _INSTANCE_ATTRIBUTES:
        missing = set(expected.split()) - set(owner.__init__.__code__.co_names)
        found += [f"{owner.__name__}.__init__ does not set {name}" for name in sorted(missing)]
    return found


def saved_token_ids(params: SamplingParams | None) -> list[int]:
    """The tokens with which a request arrived; empty for an ordinary one."""
    extra = params.extra_args if params is not None else None
    return extra.get(SAVED, []) if extra else []


# ---- engine core ----------------------------------------------------------------------------


def install_core_process(run: Callable[..., None]) -> None:
    """Make engine cores start in `run`, an importable function that calls `run_engine_core`."""
    EngineCoreProc.run_engine_core = staticmethod(run)  # type: ignore[method-assign]


def core_processes(llm: AsyncLLM) -> list[Any]:
    """The engine cores that this front end started, as multiprocessing processes."""
    engine_manager = getattr(llm.engine_core, "resources").engine_manager  # noqa: B009
    return list(engine_manager.processes) if engine_manager is not None else []


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


# ---- worker ---------------------------------------------------------------------------------


def describe_worker(worker: Any) -> dict[str, str]:
    """Model runner, device and what else of the worker the numerics depend on."""
    device = worker.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "runner": "v2" if worker.use_v2_model_runner else "v1",
        "device": device.type,
        "device_name": name,
        "torch": str(torch.__version__),
    }


class ReplayedGenerator(torch.Generator):
    """A CPU generator whose offset is the number of output tokens its request has.

    Model runner V1 undoes the draw of a prefill chunk by `set_offset(get_offset() - 4)`, which CPU
    generators do not have: the engine would end. Undoing means the same here: the state after
    one draw per output token (`TopKTopPSampler.forward_cpu` draws one `randint` per token).
    """

    state: CachedRequestState

    def get_offset(self) -> int:
        return 0

    def set_offset(self, offset: int) -> torch.Generator:  # noqa: ARG002
        self.replay()
        return self

    def replay(self) -> None:
        self.manual_seed(self.initial_seed())
        if num_draws := len(self.state.output_token_ids):
            torch.randint(0, 2**31, (num_draws,), generator=self, dtype=torch.long)


def install_v1_hook() -> None:
    """Wrap the birth of V1's per-request state: saved tokens in, generator moved past them."""
    original = CachedRequestState.__post_init__
    if hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    def post_init(self: CachedRequestState) -> None:
        if not self.output_token_ids:
            self.output_token_ids = list(saved_token_ids(self.sampling_params))
        if self.generator is not None and self.generator.device.type == "cpu":
            generator = ReplayedGenerator()
            generator.state = self
            generator.manual_seed(self.generator.initial_seed())
            generator.replay()
            self.generator = generator
        original(self)

    CachedRequestState.__post_init__ = post_init


# ---- front end ------------------------------------------------------------------------------


class PrimingOutputProcessor(OutputProcessor):
    """Tells `on_state` of every request's front-end state before its first token arrives."""

    on_state: Callable[[str, RequestState], None]

    def add_request(self, request: EngineCoreRequest, *args: Any, **kwargs: Any) -> None:
        super().add_request(request, *args, **kwargs)
        state = self.request_states[request.request_id]
        self.on_state(state.external_req_id, state)


def install_front_end(llm: AsyncLLM, on_state: Callable[[str, RequestState], None]) -> None:
    processor = llm.output_processor
    processor.__class__ = PrimingOutputProcessor
    processor.on_state = on_state  # type: ignore[attr-defined]  # of the class just given to it


def fail_calls_at_death(llm: AsyncLLM) -> None:
    """Let calls that wait for a reply of the engine core fail when it dies; vLLM forgets them.

    On the event loop, before the first call.
    """
    client: Any = llm.engine_core
    client._ensure_output_queue_task()

    def fail_calls(_: Any) -> None:
        for reply in client.utility_results.values():
            if not reply.done():
                reply.set_exception(EngineDeadError())

    client.resources.output_queue_task.add_done_callback(fail_calls)


def stop_reading(llm: AsyncLLM) -> None:
    """End the task that reads the engine core's output; from a thread beside the event loop.

    Left running, it takes a shutdown for a death, and logs one.
    """
    if (reading := llm.output_handler) is not None:
        reading.get_loop().call_soon_threadsafe(reading.cancel)


def fail_requests(llm: AsyncLLM) -> None:
    """Wake whoever waits for a request of an engine that was shut down: nothing else would."""
    llm.output_processor.propagate_error(EngineDeadError())


def close_context(llm: AsyncLLM, timeout_s: float) -> None:
    """Close the ZeroMQ context that vLLM leaves to the garbage collector, and its threads.

    Its sockets are closed by then. Were one left open, closing would block: hence beside us.
    """
    context = getattr(llm.engine_core, "resources").ctx  # noqa: B009
    closing = threading.Thread(target=context.destroy, kwargs={"linger": 0}, daemon=True)
    closing.start()
    closing.join(timeout_s)


def prepare_state(state: RequestState) -> None:
    """Decoding every logprob's token to text is the dearest work of the front end; not wanted."""
    assert state.logprobs_processor is not None
    state.logprobs_processor.tokenizer = None


def prime_state(
    state: RequestState,
    token_ids: Sequence[int],
    logprobs: Sequence[TokenLogprobs] | None,
) -> None:
    """Replay saved tokens through the objects that would have seen them live."""
    detokenizer, processor = state.detokenizer, state.logprobs_processor
    assert detokenizer is not None
    assert processor is not None
    detokenizer.update(list(token_ids), False)
    if logprobs and processor.num_logprobs is not None:
        for row in logprobs:
            lists = LogprobsLists(
                np.array([row.token_ids], np.int32),
                np.array([row.logprobs], np.float32),
                np.array([row.rank], np.int32),
                None,
            )
            processor._update_sample_logprobs(lists)


def read_token_ids(state: RequestState) -> list[int]:
    """The output tokens that the front end holds, saved ones included."""
    assert state.detokenizer is not None
    return state.detokenizer.output_token_ids


def read_logprobs(state: RequestState) -> Any:
    assert state.logprobs_processor is not None
    return state.logprobs_processor.logprobs


def read_prompt_logprobs(state: RequestState) -> Any:
    assert state.logprobs_processor is not None
    return state.logprobs_processor.prompt_logprobs


def finish_of(
    llm: AsyncLLM, core_request: EngineCoreRequest, token_ids: Sequence[int]
) -> tuple[str, int | str | None, str] | None:
    """How `token_ids` end the request, by vLLM's own checks: (reason, stop reason, text) or None.

    A checkpoint may hold the last token of a generation whose finish was lost.
    """
    params = core_request.sampling_params
    assert params is not None
    request = Request.from_engine_core_request(core_request, None)
    request.append_output_token_ids(list(token_ids))
    stopped = check_stop(request, llm.vllm_config.model_config.max_model_len)
    reason = str(request.get_finished_reason()) if stopped else None
    detokenizer = IncrementalDetokenizer.from_new_request(llm.renderer.tokenizer, core_request)
    detokenizer.update(list(token_ids[:-1]), False)
    stop_string = detokenizer.update([token_ids[-1]], reason == "stop")
    if stop_string is not None:
        return "stop", stop_string, detokenizer.get_next_output_text(True, False)
    if reason is None:
        return None
    return reason, request.stop_reason, detokenizer.get_next_output_text(True, False)


# ---- pipelines (workers/pipeline) -----------------------------------------------------------


def cpu_worker_class() -> Any:
    """vLLM's worker for CPU; its module is imported where it is used only."""
    from vllm.v1.worker.cpu_worker import CPUWorker

    return CPUWorker


def gpu_worker_class() -> Any:
    """vLLM's worker for NVIDIA and AMD GPUs; as above."""
    from vllm.v1.worker.gpu_worker import Worker

    return Worker
