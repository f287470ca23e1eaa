"""Every private name of vLLM that is called, wrapped, read or written, with a check of all of them.

To adopt another vLLM: raise the pin here and in pyproject.toml, `make lock`, and let the check say
what changed.
"""

import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from types import ModuleType
from typing import Any

import vllm
from vllm.distributed import parallel_state
from vllm.distributed.device_communicators import shm_broadcast
from vllm.distributed.device_communicators.shm_broadcast import MessageQueue
from vllm.distributed.parallel_state import GroupCoordinator
from vllm.logprobs import FlatLogprobs
from vllm.utils import network_utils
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.core.sched.utils import check_stop
from vllm.v1.engine import utils as engine_utils
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.core import EngineCoreProc
from vllm.v1.engine.core_client import AsyncMPClient, MPClient
from vllm.v1.engine.detokenizer import IncrementalDetokenizer
from vllm.v1.engine.logprobs import LogprobsProcessor
from vllm.v1.engine.output_processor import OutputProcessor, RequestState
from vllm.v1.executor import multiproc_executor
from vllm.v1.executor.multiproc_executor import MultiprocExecutor, WorkerProc
from vllm.v1.request import Request
from vllm.v1.sample.sampler import Sampler
from vllm.v1.structured_output import StructuredOutputManager
from vllm.v1.worker.gpu_input_batch import CachedRequestState

PINNED_VERSION = "0.32.0"

_SIGNATURES: tuple[tuple[Callable[..., Any], str], ...] = (
    (Scheduler.add_request, "self request"),
    (Scheduler._handle_blocked_waiting_request, "self request"),
    (Scheduler.schedule, "self throttle_prefills"),
    (Scheduler.update_from_output, "self scheduler_output model_runner_output"),
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
    (EngineCoreProc.pause_scheduler, "self mode clear_cache"),
    (IncrementalDetokenizer.num_output_tokens, "self"),
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
    (
        parallel_state.init_model_parallel_group,
        "group_ranks local_rank backend use_message_queue_broadcaster group_name "
        "use_device_communicator use_all2all",
    ),
    (
        GroupCoordinator.__init__,
        "self group_ranks local_rank torch_distributed_backend use_device_communicator "
        "use_message_queue_broadcaster group_name use_all2all",
    ),
    (
        GroupCoordinator.isend_tensor_dict,
        "self tensor_dict dst all_gather_group all_gather_tensors",
    ),
    (
        GroupCoordinator.irecv_tensor_dict,
        "self src all_gather_group all_gather_tensors",
    ),
    (
        GroupCoordinator.create_single_reader_mq_broadcasters,
        "self reader_rank_in_group blocking",
    ),
    (
        MessageQueue.__init__,
        "self n_reader n_local_reader local_reader_ranks max_chunk_bytes max_chunks connect_ip "
        "enable_shm_tensor_arena",
    ),
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
    (Scheduler, "current_step running parallel_config vllm_config"),
    (EngineCoreProc, "output_queue"),
    (OutputProcessor, "request_states"),
    (MPClient, "utility_results resources"),
    (StructuredOutputManager, "reasoner_cls enable_in_reasoning"),
    (AsyncLLM, "output_processor input_processor renderer vllm_config output_handler"),
)
"""Attributes that `__init__` sets, read or written here."""


_MODULE_ATTRIBUTES: tuple[tuple[ModuleType, str], ...] = (
    (engine_utils, "get_mp_context"),
    (multiproc_executor, "get_mp_context"),
    (shm_broadcast, "sched_yield"),
    (network_utils, "tempfile get_file_store_init_method"),
    (parallel_state, "_TP _ETP _DCP _PCP _PP _DP _EP _INNER_DP_WORLD TensorMetadata"),
)
"""Attributes of modules that are read or replaced."""


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
        missing = set(expected.split()) - set(inspect.unwrap(owner.__init__).__code__.co_names)
        found += [f"{owner.__name__}.__init__ does not set {name}" for name in sorted(missing)]
    for module, expected in _MODULE_ATTRIBUTES:
        missing = set(expected.split()) - set(vars(module))
        found += [f"{module.__name__} has no {name}" for name in sorted(missing)]
    return found
