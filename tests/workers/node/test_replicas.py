"""Which GPUs and cores each worker of a node gets."""

from collections.abc import Mapping

import pytest

from workers.node.replicas import replicas_of


@pytest.mark.parametrize(
    ("num_gpus", "per_worker", "environment", "devices"),
    [
        (8, 4, {}, ["0,1,2,3", "4,5,6,7"]),
        (4, 1, {"CUDA_VISIBLE_DEVICES": ""}, ["0", "1", "2", "3"]),
        (8, 1, {"CUDA_VISIBLE_DEVICES": "5, 7"}, ["5", "7"]),
        (8, 2, {"CUDA_VISIBLE_DEVICES": "1,2,3"}, []),
        (7, 2, {}, ["0,1", "2,3", "4,5"]),
        (8, 8, {}, []),
        (1, 1, {}, []),
        (0, 1, {}, []),
    ],
)
def test_each_replica_has_devices_of_its_own(
    num_gpus: int, per_worker: int, environment: Mapping[str, str], devices: list[str]
) -> None:
    found = replicas_of(num_gpus, per_worker, environment)
    assert [",".join(replica.devices) for replica in found] == devices
    assert all(replica.of_node == len(found) for replica in found)


@pytest.mark.parametrize("num_cores", [3, 8, 13, 192])
def test_replicas_share_the_cores_of_the_node(num_cores: int) -> None:
    """Disjoint while there are enough, and none is left over."""
    found = replicas_of(8, 2, {})
    shares = [list(replica.cores(range(num_cores))) for replica in found]
    assert all(shares)
    if num_cores >= len(found):
        assert sorted(core for share in shares for core in share) == list(range(num_cores))
