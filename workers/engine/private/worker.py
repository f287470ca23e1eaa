"""Private names in a rank's process: model runner V1's state, the sampler, the process groups."""

import functools
from typing import Any

import torch
from vllm.distributed import parallel_state
from vllm.distributed.device_communicators.shm_broadcast import MessageQueue
from vllm.v1.sample.sampler import Sampler
from vllm.v1.worker.gpu_input_batch import CachedRequestState

from workers.engine.private.saved_tokens import saved_token_ids

__all__ = ["MessageQueue", "Sampler", "parallel_state"]
"""vLLM's own, which the mended sampler and the groups of a pipeline build on."""


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


def cpu_worker_class() -> Any:
    """vLLM's worker for CPU; its module is imported where it is used only."""
    from vllm.v1.worker.cpu_worker import CPUWorker

    return CPUWorker


def gpu_worker_class() -> Any:
    """vLLM's worker for NVIDIA and AMD GPUs; as above."""
    from vllm.v1.worker.gpu_worker import Worker

    return Worker
