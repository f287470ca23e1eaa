"""What makes a vLLM worker that of its own stage; mixed in before the worker of a device."""

import ctypes
import os
import signal
from typing import Any

from workers.engine.private.worker import parallel_state
from workers.pipeline import groups
from workers.pipeline.executor import apply_to, mark_shared_memory
from workers.pipeline.stage_map import StageMap

_PR_SET_PDEATHSIG = 1
"""prctl(2)."""


class StageWorker:
    """A rank with its stage's TP degree, layers and groups."""

    def __init__(
        self, vllm_config: Any, local_rank: int, rank: int, *args: Any, **options: Any
    ) -> None:
        # A rank in a rendezvous or in a remote read does not act on its death pipe: orphaned, it
        # would hold the device and answer the next launch.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        stages = StageMap.of_config(vllm_config.additional_config)
        mark_shared_memory(stages.token)
        stage, tp_rank = stages.locate(rank)
        parallel = vllm_config.parallel_config
        apply_to(parallel, stages)
        parallel.tensor_parallel_size = stages.tp[stage]
        os.environ["VLLM_PP_LAYER_PARTITION"] = stages.layer_partition
        vllm_config.model_config.verify_with_parallel_config(parallel)
        groups.install(stages)
        super().__init__(vllm_config, local_rank, rank, *args, **options)  # type: ignore[call-arg]
        # vLLM's configuration derives the stage as rank // tp % pp: the rank that this one would
        # have if every stage had this stage's TP degree.
        parallel.rank = stage * stages.tp[stage] + tp_rank


class InputBuffer:
    """Mends vLLM 0.32 on CPU: with `enforce_eager` no warm-up allocates a stage's input buffer."""

    def load_model(self: Any, *args: Any, **options: Any) -> None:
        super().load_model(*args, **options)  # type: ignore[misc]  # of the worker beside it
        runner = self.model_runner
        if not parallel_state.get_pp_group().is_first_rank and runner.intermediate_tensors is None:
            runner.intermediate_tensors = runner.model.make_empty_intermediate_tensors(
                batch_size=runner.max_num_tokens,
                dtype=runner.model_config.dtype,
                device=runner.device,
            )
