"""What a node without a plan runs: a worker for each share of its GPUs that an engine fills."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shunt.fleet.local import cores_of


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

    def cores(self, of_node: Sequence[int]) -> Sequence[int]:
        """Its share of the node's cores, in one piece: GPUs and cores of a socket lie together."""
        return cores_of(self.number // len(self.devices), self.of_node, of_node)

    def like(self, other: object) -> bool:
        """Whether a process of the one serves for the other."""
        return self == other


def replicas_of(num_gpus: int, per_worker: int, environment: Mapping[str, str]) -> list[Replica]:
    """The replicas of a node with so many GPUs, or with those that its environment lets it see;
    empty where one worker has all that there is."""
    visible = environment.get("CUDA_VISIBLE_DEVICES", "").strip()
    given = [name.strip() for name in visible.split(",")] if visible else None
    names = given or [str(number) for number in range(num_gpus)]
    count = len(names) // per_worker
    if count < 2:
        return []
    starts = range(0, count * per_worker, per_worker)
    return [Replica(tuple(names[at : at + per_worker]), at, count) for at in starts]
