"""Launches of `running.py`, their processes, and what they may have left."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shunt.audit import compare
from shunt.generation import Finish, Generation, TokenLogprobs

RUNNING = Path(__file__).with_name("running.py")
ROOT = Path(__file__).parents[3]


def start(role: str, spec: dict[str, Any], *prefix: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*prefix, sys.executable, str(RUNNING), role, json.dumps(spec)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


@dataclass(frozen=True, slots=True)
class Told:
    """What a head said of its launch."""

    generations: list[Generation]
    batch_starts: list[int]
    """At index k: batches that started as the k-th in flight; empty where vLLM's executor ran."""


def run(spec: dict[str, Any], *prefix: str) -> Told:
    """One launch of a head to its end."""
    process = start("head", spec, *prefix)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    told = json.loads(output.splitlines()[-1])
    return Told([_generation(fields) for fields in told["generations"]], told["batch_starts"])


def _generation(fields: dict[str, Any]) -> Generation:
    rows = [TokenLogprobs(tuple(r["token_ids"]), tuple(r["logprobs"]), r["rank"])
            for r in fields["logprobs"]]  # fmt: skip
    return Generation(
        token_ids=tuple(fields["token_ids"]),
        logprobs=tuple(rows),
        fingerprint=fields["fingerprint"],
        finish=Finish(**fields["finish"]),
    )


NEAR_TIE = 1e-3
"""Logprobs of one rank and of a pipeline differ by up to 1.3e-4 (float32, weights of scale 3)."""


def assert_same(expected: Told, told: Told) -> None:
    """Equal tokens, but where one rank itself did not know which of two to prefer."""
    for index, (one, other) in enumerate(zip(expected.generations, told.generations, strict=True)):
        found = compare(one, other)
        assert found.max_logprob_gap < NEAR_TIE, (index, found)
        if not found.same_tokens:
            assert found.choice_gap is not None, (index, found)
            assert found.choice_gap < NEAR_TIE, (index, found)


class holding:
    """A pipeline [2, 1] that generates without end; yields its head and the pids of its parts."""

    def __init__(self, model: str) -> None:
        spec = {"model": model, "tp": [2, 1], "layers": [4, 2], "nodes": [0, 0], "hold": True}
        self._head = start("head", spec)

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


def assert_all_gone(pids: dict[str, int]) -> None:
    deadline = time.monotonic() + 30
    left: set[str] = set(pids)
    while (left := {n for n in left if _alive(pids[n])}) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left
    while (found := left_in_shared_memory()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not found


def _alive(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    return False


def left_in_shared_memory() -> set[str]:
    """What pipelines marked: segments, whose nine digits are one more than Python's, semaphores."""
    marked = re.compile(r"psm_[0-9a-f]{9}$|.*vllm_dist_[0-9a-f]{5}n|sem\.mp[0-9a-f]{5}-")
    return {path.name for path in Path("/dev/shm").iterdir() if marked.match(path.name)}
