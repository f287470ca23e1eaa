"""Launches of `running.py`, their processes, and what they may have left."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import Any

RUNNING = Path(__file__).with_name("running.py")
ROOT = Path(__file__).parents[3]


def start(role: str, spec: dict[str, Any], *prefix: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*prefix, sys.executable, str(RUNNING), role, json.dumps(spec)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def tokens_of(spec: dict[str, Any], *prefix: str) -> list[list[int]]:
    process = start("head", spec, *prefix)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    return json.loads(output.splitlines()[-1])


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
    """Segments that a pipeline marked: nine digits where Python's own names have eight."""
    marked = re.compile(r"psm_[0-9a-f]{9}$|.*vllm_dist_[0-9a-f]{5}n")
    return {path.name for path in Path("/dev/shm").iterdir() if marked.match(path.name)}
