"""How the engine is started: one frozen record, and the pure functions that spell it for vLLM."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

KV_CACHE_SPACE = "VLLM_CPU_KVCACHE_SPACE"

ENGINE_ENVIRONMENT: Mapping[str, str] = {
    # No network at run time: weights and tokenizer are on disk before the engine starts.
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    # A forked engine core would inherit the event loop's threads and locks.
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
}
"""What every process with an engine in it needs, set before vllm is imported."""


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """The engine arguments that decide results, size and speed."""

    model_path: str
    """Local directory in Hugging Face layout."""
    dtype: str = "auto"
    max_model_len: int | None = None
    max_num_seqs: int = 64
    max_num_batched_tokens: int | None = None
    enforce_eager: bool = False
    enable_prefix_caching: bool = True
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    gpu_memory_utilization: float = 0.9
    adapters: Mapping[str, str] = field(default_factory=dict[str, str])
    """LoRA adapters by name: local directories."""
    max_lora_rank: int = 16
    store_socket: str = ""
    """Of the node's tensor store, through which engines share their weights; empty: each has its
    own."""
    tool_call_parser: str | None = None
    """vLLM's parser of calls of tools, for requests that ask for them."""
    log_stats: bool = False
    """Whether vLLM counts and registers its own metrics, which costs it some time in each step."""
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Any other field of vLLM's `AsyncEngineArgs`, under its own name."""


def engine_arguments(config: EngineConfig) -> dict[str, Any]:
    """The keyword arguments of `AsyncEngineArgs` that `config` means. Pure."""
    arguments: dict[str, Any] = {
        "model": config.model_path,
        "dtype": config.dtype,
        "max_num_seqs": config.max_num_seqs,
        "enforce_eager": config.enforce_eager,
        "enable_prefix_caching": config.enable_prefix_caching,
        "tensor_parallel_size": config.tensor_parallel_size,
        "pipeline_parallel_size": config.pipeline_parallel_size,
        "gpu_memory_utilization": config.gpu_memory_utilization,
        "disable_log_stats": not config.log_stats,
        "enable_log_requests": False,
    }
    for name in ("max_model_len", "max_num_batched_tokens"):
        if (value := getattr(config, name)) is not None:
            arguments[name] = value
    if config.adapters:
        arguments |= {
            "enable_lora": True,
            "max_loras": len(config.adapters),
            "max_lora_rank": config.max_lora_rank,
        }
    if config.store_socket:
        arguments |= {
            "load_format": "shunt",
            "model_loader_extra_config": {"socket": config.store_socket},
        }
    return arguments | dict(config.extra)


def engine_environment(
    *, threads: int | None = None, kv_cache_gib: int | None = None
) -> dict[str, str]:
    """The environment of a process that will import vllm; applied at the process edge.

    `threads` binds the CPU back end to that many OpenMP threads, unpinned, so that several workers
    of one machine share its cores; `kv_cache_gib` is the CPU back end's KV cache.
    """
    environment = dict(ENGINE_ENVIRONMENT)
    if threads is not None:
        environment |= {
            "OMP_NUM_THREADS": str(threads),
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        }
    if kv_cache_gib is not None:
        environment[KV_CACHE_SPACE] = str(kv_cache_gib)
    return environment
