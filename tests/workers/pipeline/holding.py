"""Pipelines that generate without end, to be broken; and what they must not leave."""

import logging
import os
import re
import signal
import subprocess
import time
from collections.abc import Collection, Generator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shunt.testing.processes import is_running
from tests.workers.pipeline.processes import Told, scratch, start, told_in
from workers.pipeline.janitor import POLL_S
from workers.pipeline.network import PORTS

log = logging.getLogger(__name__)

GONE_S = 30.0
_LISTENS = "0A"
"""A socket's state in /proc/net/tcp."""


@dataclass(frozen=True, slots=True)
class Held:
    """The processes of a running pipeline, as the test started or found them."""

    head: "subprocess.Popen[str]"
    followers: "list[subprocess.Popen[str]]"
    pids: dict[str, int]
    """`worker`, `core`, `head janitor`, `head rank 0`, `follower 1`, `follower 1 janitor`..."""
    memory: set[str]
    """What of /dev/shm they have mapped."""
    told: Told
    """What the pipeline generated before it went on without end."""

    def says(self) -> str:
        """The head's next word: `died` once it has noticed."""
        assert self.head.stdout is not None
        return self.head.stdout.readline().strip()


class holding:
    """Starts a pipeline, yields it and ends what the test has left. `hosts`: prefix by node."""

    def __init__(self, spec: dict[str, Any], hosts: Sequence[tuple[str, ...]] = ((),)) -> None:
        spec = spec | {"hold": True}
        prefixes = [hosts[node % len(hosts)] for node in range(max(spec["nodes"]) + 1)]
        self._followers = [
            start("follow", spec | {"node": node}, *prefix)
            for node, prefix in enumerate(prefixes)
            if node
        ]
        self._head = start("head", spec, *prefixes[0])

    def __enter__(self) -> Held:
        assert self._head.stdout is not None
        words, told = self._head.stdout.readline().split(), self._head.stdout.readline()
        if words[:1] != ["started"] or not told.startswith("{"):
            self.__exit__()
            raise AssertionError(f"the head said {words}, {told}")
        core = int(words[1])
        pids = {"worker": self._head.pid, "core": core} | _parts("head", core)
        for node, follower in enumerate(self._followers, start=1):
            name = f"follower {node}"
            pids |= {name: follower.pid} | _parts(name, follower.pid)
        mapped = _mapped(pids.values())
        return Held(self._head, self._followers, pids, mapped, told_in(told))

    def __exit__(self, *_: object) -> None:
        for process in (self._head, *self._followers):
            with suppress(ProcessLookupError):
                process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def _parts(owner: str, pid: int) -> dict[str, int]:
    """Janitor and ranks that a process has started."""
    parts: dict[str, int] = {}
    ranks = 0
    for child in sorted(_children(pid)):
        command = Path(f"/proc/{child}/cmdline").read_bytes().decode()
        if "janitor" in command:
            parts[f"{owner} janitor"] = child
        elif "libtorch" in Path(f"/proc/{child}/maps").read_text():
            parts[f"{owner} rank {ranks}"] = child
            ranks += 1
    return parts


def _children(pid: int) -> Generator[int]:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = stat.read_text().rsplit(")", 1)[1].split()
            if int(fields[1]) == pid:
                yield int(stat.parent.name)


def _mapped(pids: Iterable[int]) -> set[str]:
    names: set[str] = set()
    for pid in pids:
        with suppress(OSError):
            names.update(re.findall(r"/dev/shm/(\S+)", Path(f"/proc/{pid}/maps").read_text()))
    return names


def strike(held: Held, victim: str, number: signal.Signals) -> float:
    """Signal one process; returns the seconds until the head has noticed, or is gone itself."""
    os.kill(held.pids[victim], number)
    since = time.monotonic()
    if victim != "worker":
        assert held.says() == "died"
    elif number is signal.SIGSTOP:
        assert not until_gone([held.pids["core"]])  # suspended, it loses its engine
    seconds = time.monotonic() - since
    log.info("struck %s with %s: noticed after %.2f s", victim, number.name, seconds)
    if (victim, number) == ("worker", signal.SIGSTOP):
        os.kill(held.head.pid, signal.SIGCONT)
        assert held.says() == "died"
    return seconds


def replaced_by(held: Held, name: str, former: int) -> None:
    """Wait until the core has another process of this name, which has looked at what is there."""
    deadline = time.monotonic() + GONE_S
    while (new := _parts("head", held.pids["core"]).get(name, former)) == former:
        assert time.monotonic() < deadline, f"no other {name}"
        time.sleep(0.05)
    held.pids[name] = new
    time.sleep(2 * POLL_S)


def assert_nothing_left(held: Held) -> None:
    """No process, no shared memory, no socket, no port: the next launch works at once."""
    held.head.wait(GONE_S)
    for follower in held.followers:
        follower.wait(GONE_S)
    assert not until_gone(held.pids.values())
    assert held.memory
    assert_nothing_kept(held.memory)


def assert_nothing_kept(memory: Collection[str] = ()) -> None:
    """No shared memory, and `memory` by name; no socket, no file, no port."""
    deadline = time.monotonic() + GONE_S
    while (found := _kept(memory)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not found


def _kept(memory: Collection[str]) -> set[str]:
    named = {name for name in memory if Path("/dev/shm", name).exists()}
    return named | left_in_shared_memory() | left_on_disk() | kept_ports()


def until_gone(pids: Iterable[int]) -> set[int]:
    """Wait for their end; those that are there after `GONE_S`."""
    deadline = time.monotonic() + GONE_S
    left = set(pids)
    while (left := {pid for pid in left if is_running(pid)}) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


def left_in_shared_memory() -> set[str]:
    """What pipelines marked, but for what another test run's processes have mapped: segments, whose
    nine digits are one more than Python's, and semaphores."""
    marked = re.compile(r"psm_[0-9a-f]{9}$|.*vllm_dist_[0-9a-f]{5}n|sem\.mp[0-9a-f]{5}-")
    found = {path.name for path in Path("/dev/shm").iterdir() if marked.match(path.name)}
    return found - _mapped(_of_others()) if found else found


def left_on_disk() -> set[str]:
    """Unix sockets and rendezvous files of the launches of this test run."""
    return {path.name for kind in ("shunt-ipc-*", "vllm_dist_*") for path in scratch().glob(kind)}


def kept_ports() -> set[str]:
    """Ports of the documented range that somebody in this network namespace listens on, but for
    those of another test run's processes."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    sockets = [(fields[1], fields[9]) for fields in map(str.split, lines) if fields[3] == _LISTENS]
    found = {inode: int(address.rsplit(":", 1)[1], 16) for address, inode in sockets}
    kept = {f"socket:[{inode}]": f"port {port}" for inode, port in found.items() if port in PORTS}
    theirs = _open_files(_of_others()) if kept else set()
    return {port for socket, port in kept.items() if socket not in theirs}


def _of_others() -> list[int]:
    """Processes that work elsewhere than this test run's launches."""
    others: list[int] = []
    for path in Path("/proc").glob("[0-9]*/cwd"):
        with suppress(OSError):
            if path.readlink() != scratch():
                others.append(int(path.parent.name))
    return others


def _open_files(pids: Iterable[int]) -> set[str]:
    links: set[str] = set()
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").glob("*"):
            with suppress(OSError):
                links.add(os.readlink(descriptor))
    return links
