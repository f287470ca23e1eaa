"""A pipeline over two network namespaces: the tokens of one rank, and a cut link noticed."""

import os
import shutil
import subprocess
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.workers.pipeline.processes import (
    Told,
    assert_same,
    left_in_shared_memory,
    run,
    start,
)

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root and iproute2"
    ),
]

CUT_LIMIT_S = 10.0
BUSY_MACHINE = 3.0


@pytest.fixture
def hosts() -> Generator[tuple[str, str]]:
    """Names of two namespaces, 10.77.1.1 and 10.77.1.2, on one link."""
    names = (f"shunt-a{os.getpid()}", f"shunt-b{os.getpid()}")
    for name in names:
        _ip("netns", "add", name)
    _ip("link", "add", "v0", "netns", names[0], "type", "veth", "peer", "v1", "netns", names[1])
    for number, name in enumerate(names):
        _ip("-n", name, "addr", "add", f"10.77.1.{number + 1}/24", "dev", f"v{number}")
        for device in ("lo", f"v{number}"):
            _ip("-n", name, "link", "set", device, "up")
    yield names
    for name in names:
        _ip("netns", "del", name)


def test_two_hosts_give_the_tokens_of_one_rank(
    model: str, one_rank: Told, hosts: tuple[str, str]
) -> None:
    spec = _spec(model)
    follower = start("follow", spec | {"node": 1}, *_on(hosts[1]))
    assert_same(one_rank, run(spec, *_on(hosts[0])))
    assert follower.wait(30) == 0
    _close(follower)


@pytest.mark.soak
def test_a_cut_link_ends_both_sides(model: str, hosts: tuple[str, str]) -> None:
    spec = _spec(model) | {"hold": True}
    follower = start("follow", spec | {"node": 1}, *_on(hosts[1]))
    head = start("head", spec, *_on(hosts[0]))
    assert head.stdout is not None
    assert head.stdout.readline().startswith("started")
    _ip("-n", hosts[0], "link", "set", "v0", "down")
    since = time.monotonic()
    assert head.stdout.readline() == "died\n"
    assert time.monotonic() - since < CUT_LIMIT_S * BUSY_MACHINE
    assert follower.wait(CUT_LIMIT_S * BUSY_MACHINE) == 1
    assert head.wait(30) == 0
    _close(head)
    _close(follower)
    assert not left_in_shared_memory()


def _spec(model: str) -> dict[str, Any]:
    addresses = {"n-0": "10.77.1.1", "n-1": "10.77.1.2"}
    return {
        "model": model,
        "tp": [2, 1],
        "layers": [4, 2],
        "nodes": [0, 1],
        "addresses": addresses,
    }


def _on(host: str) -> tuple[str, ...]:
    return (str(shutil.which("ip")), "netns", "exec", host)


def _close(process: "subprocess.Popen[str]") -> None:
    if process.stdout is not None:
        process.stdout.close()


def _ip(*arguments: str) -> None:
    subprocess.run([Path(str(shutil.which("ip"))), *arguments], check=True)
