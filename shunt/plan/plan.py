"""The plan: pipelines on nodes to buy, and what they are expected to do. Durable and versioned.

`placement` writes it, reconciliation and workers read it; it is all that they share.
"""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NodeSlot(_Record):
    """One node to have: any node of this offering may fill the slot."""

    slot: str
    """Name within the plan, such as `g6.12xlarge-0`."""
    instance_type: str
    zone: str
    """Availability zone, or `` where any will do."""
    market: Literal["spot", "on-demand"]
    usd_per_hour: float = Field(ge=0)
    gpu: str = ""
    gpu_count: int = Field(ge=0)


class Stage(_Record):
    """A contiguous range of layers on some GPUs of one node."""

    slot: str
    first_gpu: int = Field(default=0, ge=0)
    tp: int = Field(gt=0)
    """Tensor-parallel degree: GPUs `first_gpu` to `first_gpu + tp - 1` of the node."""
    first_layer: int = Field(ge=0)
    end_layer: int = Field(gt=0)
    """One past the last layer."""
    memory_share: float = Field(default=0.0, ge=0)
    """Predicted use of each GPU's memory, weights and cache."""
    limited_by: str = ""
    """What takes most of the stage's time: compute, memory bandwidth, link between GPUs, host."""

    @property
    def num_layers(self) -> int:
        return self.end_layer - self.first_layer


class Pipeline(_Record):
    """Ordered stages that hold the whole model; stage 0 is on the head node."""

    name: str
    stages: tuple[Stage, ...] = Field(min_length=1)
    max_num_seqs: int = Field(gt=0)
    """Sequences in flight (vLLM's setting of the same name)."""
    predicted_requests_per_s: float = Field(ge=0)
    predicted_kv_tokens: int = Field(default=0, ge=0)
    """Tokens that the KV cache holds, by the stage that holds fewest; 0: not predicted."""

    @model_validator(mode="after")
    def _layers_are_contiguous(self) -> Self:
        expected = 0
        for stage in self.stages:
            if stage.first_layer != expected or stage.end_layer <= stage.first_layer:
                raise ValueError(
                    f"pipeline {self.name}: layers must follow each other from 0; stage on "
                    f"{stage.slot} holds {stage.first_layer} to {stage.end_layer}"
                )
            expected = stage.end_layer
        return self

    @property
    def uniform_tp(self) -> bool:
        """Whether stock vLLM can run it: one TP degree for all stages."""
        return len({stage.tp for stage in self.stages}) == 1

    @property
    def slots(self) -> tuple[str, ...]:
        """Of its nodes, in the order of the stages; the head's is the first."""
        return tuple(dict.fromkeys(stage.slot for stage in self.stages))

    @property
    def place(self) -> str:
        """Names the pipeline by where it begins: only one begins at a GPU of a node."""
        return f"{self.stages[0].slot}.{self.stages[0].first_gpu}"


class Range(_Record):
    """A forecast: one in ten below `p10`, half below `p50`, nine in ten below `p90`."""

    p10: float
    p50: float
    p90: float


class Prediction(_Record):
    """What the whole plan is expected to do on its workload."""

    requests_per_s: Range
    input_tokens_per_s: float = Field(ge=0)
    output_tokens_per_s: float = Field(ge=0)
    usd_per_hour: float = Field(ge=0)
    usd_per_million_tokens: float = Field(ge=0)
    """Input and output tokens together, at the median."""
    duration_s: Range
    """From the first launch to the last row, with start-up and the drain of the last prompts."""
    cost_usd: Range


class Certificate(_Record):
    """How far from the best possible the plan can be, under the estimator."""

    objective: str
    value: float
    bound: float
    """No plan within the limits does better than this."""
    gap: float = Field(ge=0)
    """Relative distance of value and bound."""


class Plan(_Record):
    """Desired pipelines on offerings. Version 1 is a run's first; a replan adds one."""

    format_version: Literal[1] = 1
    version: int = Field(default=1, gt=0)
    model: str
    num_layers: int = Field(gt=0)
    engine: str
    nodes: tuple[NodeSlot, ...]
    pipelines: tuple[Pipeline, ...]
    predicted: Prediction
    certificate: Certificate
    notes: tuple[str, ...] = ()
    """Sentences for people: what was relaxed, what was refused."""

    @model_validator(mode="after")
    def _stages_fit_the_nodes(self) -> Self:
        nodes = {node.slot: node for node in self.nodes}
        if len(nodes) != len(self.nodes):
            raise ValueError("two nodes of the plan have the same slot name")
        taken: set[tuple[str, int]] = set()
        for pipeline in self.pipelines:
            if pipeline.stages[-1].end_layer != self.num_layers:
                raise ValueError(
                    f"pipeline {pipeline.name} ends at layer {pipeline.stages[-1].end_layer} of "
                    f"{self.num_layers}"
                )
            for stage in pipeline.stages:
                if stage.slot not in nodes:
                    raise ValueError(f"pipeline {pipeline.name}: no node has slot {stage.slot}")
                for gpu in range(stage.first_gpu, stage.first_gpu + stage.tp):
                    if gpu >= max(nodes[stage.slot].gpu_count, 1) or (stage.slot, gpu) in taken:
                        raise ValueError(
                            f"pipeline {pipeline.name}: GPU {gpu} of {stage.slot} does not exist "
                            "or serves two stages"
                        )
                    taken.add((stage.slot, gpu))
        return self

    def node(self, slot: str) -> NodeSlot:
        """The node of this slot; KeyError where there is none."""
        return {node.slot: node for node in self.nodes}[slot]
