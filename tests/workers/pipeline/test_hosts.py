"""A pipeline over network namespaces: the tokens of one rank, and a cut link noticed."""

import logging
import os
import shutil
import time
from typing import Any

import pytest

from tests.workers.pipeline.holding import GONE_S, assert_nothing_left, holding
from tests.workers.pipeline.processes import Told, assert_same, play, run
from workers.pipeline.network import EPHEMERAL, PORTS
from workers.testing.network_hosts import Hosts, network

log = logging.getLogger(__name__)

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root and iproute2"
    ),
]

CUT_LIMIT_S = 10.0
ANY_ADDRESS = "0.0.0.0"
"""On which torch's rendezvous listens."""
BUSY_MACHINE = 3.0


@pytest.mark.parametrize(
    ("tp", "layers"),
    [
        ([2, 1], [4, 2]),
        pytest.param([1, 2, 1], [2, 3, 1], marks=pytest.mark.soak),
        pytest.param([1, 1, 2, 1], [2, 1, 2, 1], marks=pytest.mark.soak),
    ],
)
def test_hosts_give_the_tokens_of_one_rank(
    model: str, one_rank: Told, tp: list[int], layers: list[int]
) -> None:
    with network(len(tp)) as hosts:
        spec = _spec(model, tp, layers, hosts)
        followers = [
            play("follow", spec | {"node": node}, hosts.names[node]) for node in range(1, len(tp))
        ]
        told = run(spec, hosts.names[0])
        for follower in followers:
            follower.end(GONE_S)
    assert_same(one_rank, told)


@pytest.mark.soak
@pytest.mark.parametrize(
    ("cut", "tp", "layers"),
    [
        (Hosts.pull_cable, [2, 1], [4, 2]),
        (Hosts.lose_packets, [2, 1], [4, 2]),
        (Hosts.drop_in_queue, [1, 1, 2, 1], [2, 1, 2, 1]),
        (Hosts.blackhole, [2, 1], [4, 2]),
    ],
)
def test_a_cut_link_ends_all_sides(model: str, cut: Any, tp: list[int], layers: list[int]) -> None:
    """The last host but one is cut off, or the only other. And nobody listens where he must not."""
    with network(len(tp)) as hosts:
        spec = _spec(model, tp, layers, hosts)
        with holding(spec, hosts.prefixes) as held:
            for number, address in enumerate(hosts.addresses.values()):
                listeners = hosts.listeners(number)
                assert listeners
                assert {ip for ip, _ in listeners} <= {address, ANY_ADDRESS}
                assert all(port in PORTS or port in EPHEMERAL for _, port in listeners)
            cut(hosts, max(1, len(tp) - 2))
            since = time.monotonic()
            assert held.says() == "died"
            seconds = time.monotonic() - since
            log.info("cut by %s: noticed after %.2f s", cut.__name__, seconds)
            for follower in held.followers:
                assert follower.wait(CUT_LIMIT_S * BUSY_MACHINE) == 1
            assert_nothing_left(held)
        assert not any(hosts.listeners(number) for number in range(len(tp)))
    assert seconds < CUT_LIMIT_S * BUSY_MACHINE


def _spec(model: str, tp: list[int], layers: list[int], hosts: Hosts) -> dict[str, Any]:
    return {
        "model": model,
        "tp": tp,
        "layers": layers,
        "nodes": list(range(len(tp))),
        "addresses": hosts.addresses,
    }
