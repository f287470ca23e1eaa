"""Process groups of a pipeline whose stages have different TP degrees, in vLLM's own terms.

vLLM reaches its groups through module attributes of `parallel_state`; `install` makes it build
these instead, at the moment at which it would build its own (the device is chosen by then).
"""

from collections.abc import Callable
from typing import Any

import torch
from vllm.config import get_current_vllm_config

from workers.engine.private.worker import MessageQueue, parallel_state
from workers.pipeline.stage_map import StageMap

_MQ_CHUNK_BYTES = 1 << 22
_MQ_CHUNKS = 6
"""As stock `create_single_reader_mq_broadcasters` has them (vLLM 0.32)."""


def install(stages: StageMap) -> None:
    """Replace vLLM's `initialize_model_parallel` in this process."""

    def initialize(
        _tp: int, _pp: int, pcp: int = 1, dcp: int | None = 1, backend: str | None = None
    ) -> None:
        assert pcp == 1, "context parallelism is refused before the launch"
        assert (dcp or 1) == 1, "context parallelism is refused before the launch"
        world = parallel_state.get_world_group()
        _build_groups(stages, backend or torch.distributed.get_backend(world.device_group))

    parallel_state.initialize_model_parallel = initialize  # type: ignore[assignment]


def _build_groups(stages: StageMap, backend: str) -> None:
    config = get_current_vllm_config()
    world = parallel_state.get_world_group()
    per_stage = [stages.ranks(stage) for stage in range(stages.num_stages)]
    single = [[rank] for rank in range(stages.world_size)]

    def group(ranks: list[list[int]], name: str, **options: Any) -> Any:
        return parallel_state.init_model_parallel_group(
            ranks, world.local_rank, backend, group_name=name, **options
        )

    state: Any = parallel_state
    state._TP = group(per_stage, "tp", use_message_queue_broadcaster=True)
    state._ETP = state._TP
    state._DCP = group(single, "dcp", use_message_queue_broadcaster=True)
    state._PCP = group(single, "pcp")
    state._PP = LeaderGroup(stages, state._TP, world.local_rank, backend)
    state._DP = group(single, "dp")
    if config.model_config is None or config.model_config.is_moe:
        all2all = config.parallel_config.use_all2all
        state._EP = group(per_stage, "ep", use_all2all=all2all)
    if stages.num_nodes > 1:
        state._INNER_DP_WORLD = NodeAwareWorld(world, stages)


class LeaderGroup(parallel_state.GroupCoordinator):
    """The pipeline group: leaders hand hidden states on, each fans them out in its own stage.

    The torch groups below span all ranks, so that Model Runner V2's broadcast of sampled tokens,
    which makes a sibling of them, reaches every rank. `ranks`, `rank_in_group` and `world_size`
    count stages: whoever asks sees an ordinary pipeline group. Hidden states and residual are equal
    on all ranks of a stage, so one copy over the link suffices: 2 x tokens x hidden numbers.
    """

    def __init__(self, stages: StageMap, tp_group: Any, local_rank: int, backend: str) -> None:
        super().__init__(
            group_ranks=[list(range(stages.world_size))],
            local_rank=local_rank,
            torch_distributed_backend=backend,
            use_device_communicator=False,
            group_name="pp",
        )
        self._tp = tp_group
        stage, self._tp_rank = stages.locate(self.rank)
        self.ranks = stages.leaders
        self.world_size = stages.num_stages
        self.rank_in_group = stage

    @property
    def is_first_rank(self) -> bool:
        return self.rank_in_group == 0

    @property
    def is_last_rank(self) -> bool:
        return self.rank_in_group == self.world_size - 1

    def isend_tensor_dict(
        self,
        tensor_dict: dict[str, Any],
        dst: int | None = None,
        all_gather_group: Any = None,  # noqa: ARG002  slices need equal TP on both sides
        all_gather_tensors: dict[str, bool] | None = None,  # noqa: ARG002
    ) -> list[Any]:
        if self._tp_rank != 0:
            return []
        return super().isend_tensor_dict(tensor_dict, dst=dst)

    def irecv_tensor_dict(
        self,
        src: int | None = None,
        all_gather_group: Any = None,  # noqa: ARG002
        all_gather_tensors: dict[str, bool] | None = None,  # noqa: ARG002
    ) -> tuple[dict[str, Any] | None, list[Any], list[Callable[[], None]]]:
        if self._tp_rank != 0:
            tensors = _empty_like(self._tp.broadcast_object(None, src=0))
            return tensors, [], [lambda: self._fan_out(tensors)]
        received, handles, finish = super().irecv_tensor_dict(src=src)
        if self._tp.world_size == 1 or received is None:
            return received, handles, finish
        self._tp.broadcast_object(parallel_state._split_tensor_dict(received)[0], src=0)
        # Runs after the handles were waited for, when the tensors are there.
        return received, handles, [*finish, lambda: self._fan_out(received)]

    def _fan_out(self, tensors: dict[str, Any]) -> None:
        for tensor in tensors.values():
            if isinstance(tensor, torch.Tensor) and tensor.numel():
                self._tp.broadcast(tensor, src=0)


def _empty_like(metadata: list[tuple[str, Any]]) -> dict[str, Any]:
    return {
        key: torch.empty(value.size, dtype=value.dtype, device=value.device)
        if isinstance(value, parallel_state.TensorMetadata)
        else value
        for key, value in metadata
    }


class NodeAwareWorld:
    """The world group for message queues between nodes of different sizes.

    Stock takes two ranks for neighbours when `rank // device_count` is equal: wrong where nodes
    differ, and on CPU, where the count is 1.
    """

    def __init__(self, world: Any, stages: StageMap) -> None:
        self._world = world
        self._stages = stages

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world, name)

    def create_single_reader_mq_broadcasters(
        self,
        reader_rank_in_group: int = 0,
        blocking: bool = False,  # noqa: ARG002  part of the stock signature
    ) -> tuple[MessageQueue, list[Any]]:
        reader, me = reader_rank_in_group, self._world.rank
        same_node = self._stages.node_of(me) == self._stages.node_of(reader)
        queue = MessageQueue(
            1, int(same_node), max_chunk_bytes=_MQ_CHUNK_BYTES, max_chunks=_MQ_CHUNKS
        )
        handles: list[Any] | None = [None] * self._world.world_size if me == reader else None
        torch.distributed.gather_object(
            queue.export_handle(), handles, dst=reader, group=self._world.cpu_group
        )
        return queue, handles or []
