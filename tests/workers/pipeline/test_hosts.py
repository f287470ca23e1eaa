"""A pipeline over network namespaces: the tokens of one rank, and a cut link noticed."""

import os
import shutil
import time
from typing import Any

import pytest

from tests.workers.pipeline.holding import GONE_S, assert_nothing_left, holding
from tests.workers.pipeline.network_hosts import Hosts, network
from tests.workers.pipeline.processes import Told, assert_same, run, start

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root and iproute2"
    ),
]

CUT_LIMIT_S = 10.0
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
            start("follow", spec | {"node": node}, *hosts.prefixes[node])
            for node in range(1, len(tp))
        ]
        told = run(spec, *hosts.prefixes[0])
        for follower in followers:
            assert follower.wait(GONE_S) == 0
            assert follower.stdout is not None
            follower.stdout.close()
    assert_same(one_rank, told)


@pytest.mark.soak
@pytest.mark.parametrize("cut", [Hosts.pull_cable, Hosts.lose_packets])
def test_a_cut_link_ends_both_sides(model: str, cut: Any) -> None:
    with network(2) as hosts:
        spec = _spec(model, [2, 1], [4, 2], hosts)
        with holding(spec, hosts.prefixes) as held:
            cut(hosts, 1)
            since = time.monotonic()
            assert held.says() == "died"
            seconds = time.monotonic() - since
            assert held.followers[0].wait(CUT_LIMIT_S * BUSY_MACHINE) == 1
            assert_nothing_left(held)
    assert seconds < CUT_LIMIT_S * BUSY_MACHINE


def _spec(model: str, tp: list[int], layers: list[int], hosts: Hosts) -> dict[str, Any]:
    return {
        "model": model,
        "tp": tp,
        "layers": layers,
        "nodes": list(range(len(tp))),
        "addresses": hosts.addresses,
    }
