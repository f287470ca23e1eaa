"""Which rank holds what: the arithmetic of a pipeline with a TP degree per stage. Pure.

Ranks are numbered stage by stage. A stage's leader is its first rank. Travels to every process of
the engine in vLLM's `additional_config`, so it turns into plain JSON and back.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from shunt.plan.plan import Pipeline

KEY = "shunt_pipeline"
"""Name of the stage map in vLLM's `additional_config`."""
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class StageMap:
    """One pipeline as the processes of one node see it. Nodes are numbered as they first appear."""

    tp: tuple[int, ...]
    layers: tuple[int, ...]
    nodes: tuple[int, ...]
    """Node of each stage; not decreasing, and 0 first: the head holds stage 0."""
    addresses: tuple[str, ...] = (LOOPBACK,)
    """Of each node, on the interface that the others reach; loopback for all on one machine."""
    link_port: int = 0
    """On the head; 0 on one node, where nothing is linked."""
    rendezvous_port: int = 0
    node: int = 0
    """The node of this process."""
    token: str = ""
    """Marks what this launch leaves in /dev/shm and /tmp: five hexadecimal digits."""
    first_gpus: tuple[int, ...] = ()
    """Of each stage, on its node; empty: stages fill their node's GPUs in order."""
    predicted_kv_tokens: int = 0
    """KV capacity that the plan counted on; 0 where it said nothing."""

    @classmethod
    def of_pipeline(cls, pipeline: Pipeline, addresses: Mapping[str, str]) -> Self:
        """`addresses` by node slot; may be empty where the pipeline has one node."""
        slots = list(dict.fromkeys(stage.slot for stage in pipeline.stages))
        return cls(
            tp=tuple(stage.tp for stage in pipeline.stages),
            layers=tuple(stage.num_layers for stage in pipeline.stages),
            nodes=tuple(slots.index(stage.slot) for stage in pipeline.stages),
            addresses=tuple(addresses.get(slot, LOOPBACK) for slot in slots),
            first_gpus=tuple(stage.first_gpu for stage in pipeline.stages),
            predicted_kv_tokens=pipeline.predicted_kv_tokens,
        )

    @classmethod
    def of_config(cls, additional_config: Mapping[str, Any]) -> Self:
        fields: dict[str, Any] = dict(additional_config[KEY])
        for name in ("tp", "layers", "nodes", "addresses", "first_gpus"):
            fields[name] = tuple(fields[name])
        return cls(**fields)

    @classmethod
    def of_vllm(cls, vllm_config: Any) -> Self:
        return cls.of_config(vllm_config.additional_config)

    def as_additional_config(self) -> dict[str, Any]:
        fields = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        return {KEY: fields}

    @property
    def num_stages(self) -> int:
        return len(self.tp)

    @property
    def num_nodes(self) -> int:
        return max(self.nodes) + 1

    @property
    def world_size(self) -> int:
        return sum(self.tp)

    @property
    def uniform_tp(self) -> bool:
        return len(set(self.tp)) == 1

    @property
    def layer_partition(self) -> str:
        """As `VLLM_PP_LAYER_PARTITION` spells it."""
        return ",".join(str(count) for count in self.layers)

    @property
    def leaders(self) -> list[int]:
        return [sum(self.tp[:stage]) for stage in range(self.num_stages)]

    def ranks(self, stage: int) -> list[int]:
        leader = sum(self.tp[:stage])
        return list(range(leader, leader + self.tp[stage]))

    def locate(self, rank: int) -> tuple[int, int]:
        """The stage of a rank, and its TP rank in it."""
        for stage in range(self.num_stages):
            if rank in (ranks := self.ranks(stage)):
                return stage, rank - ranks[0]
        raise ValueError(f"rank {rank} is outside of a pipeline of {self.world_size} ranks")

    def node_of(self, rank: int) -> int:
        return self.nodes[self.locate(rank)[0]]

    def local_ranks(self) -> list[int]:
        """The ranks of this process's node."""
        return [rank for rank in range(self.world_size) if self.node_of(rank) == self.node]

    def local_stages(self) -> list[int]:
        """The stages of this process's node."""
        return [stage for stage, node in enumerate(self.nodes) if node == self.node]

    def local_gpus(self) -> list[int]:
        """The GPUs of this node's ranks, in the order of the ranks."""
        if not self.first_gpus:
            return list(range(len(self.local_ranks())))
        starts = [(self.first_gpus[stage], self.tp[stage]) for stage in self.local_stages()]
        return [gpu for first, tp in starts for gpu in range(first, first + tp)]
