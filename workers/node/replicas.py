"""What a node without a plan runs: a worker for each share of its GPUs that an engine fills."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Replica:
    """One of the node's workers, each of which has GPUs of its own."""

    devices: tuple[str, ...]
    """As CUDA_VISIBLE_DEVICES names them."""
    number: int
    """Place of its first GPU on the node."""
    of_node: int
    """Replicas on this node, this one too."""
    heads = True
    """Nobody on another node takes part in its engine."""

    def like(self, other: object) -> bool:
        """Whether a process of the one serves for the other."""
        return self == other


def replicas_of(num_gpus: int, per_worker: int, environment: Mapping[str, str]) -> list[Replica]:
    """The replicas of a node with so many GPUs; empty where one worker has all that there is."""
    count = num_gpus // per_worker
    if count < 2:
        return []
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(number) for number in range(num_gpus)]
    starts = range(0, count * per_worker, per_worker)
    return [Replica(tuple(names[at : at + per_worker]), at, count) for at in starts]
