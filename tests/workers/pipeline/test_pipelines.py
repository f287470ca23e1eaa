"""Unequal pipelines on real vLLM: the same tokens as one rank, and nothing left of a killed one."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from shunt.demo_model.tiny_llama import tiny_llama

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

RUNNING = Path(__file__).with_name("running.py")
ROOT = Path(__file__).parents[3]
NOTICE_LIMIT_S = 2.0
STOPPED_LIMIT_S = 10.0
BUSY_MACHINE = 3.0
"""Factor on both, for a machine that also runs everything else."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("models") / "tiny"
    return str(tiny_llama(path, layers=6, heads=4, kv_heads=2, hidden=128, tie=False, seed=3))


@pytest.fixture(scope="module")
def one_rank(model: str) -> list[list[int]]:
    return _tokens({"model": model, "tp": [1], "layers": [6], "nodes": [0]})


@pytest.mark.parametrize(
    ("tp", "layers"), [([2, 1], [4, 2]), ([1, 4, 1], [1, 3, 2]), ([1, 1], [4, 2])]
)
def test_unequal_stages_give_the_tokens_of_one_rank(
    model: str, one_rank: list[list[int]], tp: list[int], layers: list[int]
) -> None:
    before = _left_in_shared_memory()
    spec = {"model": model, "tp": tp, "layers": layers, "nodes": [0] * len(tp)}
    assert _tokens(spec) == one_rank
    assert _left_in_shared_memory() <= before


@pytest.mark.parametrize(
    ("victim", "number", "limit_s"),
    [
        ("rank", signal.SIGKILL, NOTICE_LIMIT_S),
        ("core", signal.SIGKILL, NOTICE_LIMIT_S),
        ("janitor", signal.SIGKILL, NOTICE_LIMIT_S),
        ("rank", signal.SIGSTOP, STOPPED_LIMIT_S),
        ("core", signal.SIGSTOP, STOPPED_LIMIT_S),
    ],
)
def test_a_lost_process_ends_the_pipeline_and_leaves_nothing(
    model: str, victim: str, number: signal.Signals, limit_s: float
) -> None:
    with _holding(model) as (head, pids):
        os.kill(pids[victim], number)
        since = time.monotonic()
        assert head.stdout is not None
        assert head.stdout.readline() == "died\n"
        assert time.monotonic() - since < limit_s * BUSY_MACHINE
        assert head.wait(30) == 0
    _assert_all_gone(pids)


def test_a_killed_worker_takes_its_pipeline_along(model: str) -> None:
    with _holding(model) as (head, pids):
        head.kill()
        head.wait()
    _assert_all_gone(pids)


# ---- one launch -----------------------------------------------------------------------------


def _start(role: str, spec: dict[str, Any], *prefix: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*prefix, sys.executable, str(RUNNING), role, json.dumps(spec)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def _tokens(spec: dict[str, Any]) -> list[list[int]]:
    process = _start("head", spec)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    return json.loads(output.splitlines()[-1])


class _holding:
    """A pipeline [2, 1] that generates without end; yields its head and the pids of its parts."""

    def __init__(self, model: str) -> None:
        spec = {"model": model, "tp": [2, 1], "layers": [4, 2], "nodes": [0, 0], "hold": True}
        self._head = _start("head", spec)

    def __enter__(self) -> tuple["subprocess.Popen[str]", dict[str, int]]:
        assert self._head.stdout is not None
        core = int(self._head.stdout.readline().split()[1])
        return self._head, {"core": core} | _parts(core)

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            self._head.kill()
        self._head.wait()
        assert self._head.stdout is not None
        self._head.stdout.close()


def _parts(core: int) -> dict[str, int]:
    """Pids of a core's children; `rank` is one that leads nothing."""
    parts: dict[str, int] = {}
    for pid in _children(core):
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode()
        if "janitor" in command:
            parts["janitor"] = pid
        else:
            parts[f"child-{pid}"] = pid
    ranks = [pid for name, pid in parts.items() if name != "janitor" and _maps_torch(pid)]
    return parts | {"rank": ranks[1]}


def _maps_torch(pid: int) -> bool:
    return "libtorch" in Path(f"/proc/{pid}/maps").read_text()


def _children(pid: int) -> Generator[int]:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = stat.read_text().rsplit(")", 1)[1].split()
            if int(fields[1]) == pid:
                yield int(stat.parent.name)


def _assert_all_gone(pids: dict[str, int]) -> None:
    deadline = time.monotonic() + 30
    left: set[str] = set(pids)
    while (left := {n for n in left if _alive(pids[n])}) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left
    while (found := _left_in_shared_memory()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not found


def _alive(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    return False


def _left_in_shared_memory() -> set[str]:
    """Segments that a pipeline marked: nine digits where Python's own names have eight."""
    marked = re.compile(r"psm_[0-9a-f]{9}$|.*vllm_dist_[0-9a-f]{5}n")
    return {path.name for path in Path("/dev/shm").iterdir() if marked.match(path.name)}
