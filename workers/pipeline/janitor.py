"""A small process beside an engine core or a follower, which ends what would outlive it.

Python's and vLLM's own clean-up runs in the processes that may be killed. This one holds the other
end of a pipe: when the pipe closes, or one of the processes that it watches stands still (SIGSTOP)
for `STOPPED_LIMIT_S`, it kills them all and removes what they left in /dev/shm and /tmp. Of a
pipeline of ours it is told the ranks, and their shared memory carries a token. Of an engine of
vLLM's own it watches the session of the engine core, and remembers what its processes have mapped.
Only the standard library, in a session of its own. Run as a script by `start_janitor`.
"""

import multiprocessing
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

STOPPED_LIMIT_S = 5.0
POLL_S = 0.5
_LOOKS_AT_ALL = 60
"""Every so many looks all processes are looked at: one may have the number of one that ended."""
SOCKETS = "VLLM_RPC_BASE_PATH"
"""vLLM makes its Unix sockets in this directory, and removes none of a killed process."""
_SOCKETS_PREFIX = "shunt-ipc-"
_SHARED_MEMORY = Path("/dev/shm")
_MAPPED = re.compile(r"/dev/shm/((?:psm_|vllm_dist_|sem\.mp)\S+)")
"""Segments and semaphores of Python and of vLLM's collectives, as /proc/PID/maps names them."""


def shared_memory_prefix(token: str) -> str:
    """Start of its segments' names: nine digits in all, where Python's own have eight."""
    return f"psm_{token}"


def semaphore_prefix(token: str) -> str:
    """Start of its semaphores' names; Python's own is `mp`."""
    return f"mp{token}"


def rendezvous_name(token: str, node: int) -> str:
    """Name of the rendezvous file; vLLM names the CPU back end's shared memory after it."""
    return f"vllm_dist_{token}n{node}"


def place_sockets() -> str:
    """The engine that this process starts next has its sockets in a directory of its own: this."""
    directory = os.environ[SOCKETS] = tempfile.mkdtemp(prefix=_SOCKETS_PREFIX)
    return directory


def remove_sockets(directory: str = "") -> None:
    """Remove what `place_sockets` made: the latest, or that `directory`. May run twice."""
    directory = directory or os.environ.get(SOCKETS, "")
    if Path(directory).name.startswith(_SOCKETS_PREFIX):
        shutil.rmtree(directory, ignore_errors=True)


def start_janitor(token: str = "") -> "subprocess.Popen[bytes]":
    """Watch over this process. Write a line with a pid to its stdin for each process to come.

    Without a token it needs no pids: it watches the session that this process leads.
    """
    return subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(_starter()), token],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )


def _starter() -> int:
    """Who had this process started; its parent may be the warm process that forked it."""
    starter = multiprocessing.parent_process()
    pid = starter.pid if starter is not None else None
    return os.getppid() if pid is None else pid


def watch_janitor(janitor: "subprocess.Popen[bytes]") -> None:
    """Return when it is gone, or stands still."""
    # Popen.wait with a timeout looks twenty times a second; beside an engine that is too often.
    gone = os.pidfd_open(janitor.pid)
    try:
        still_s = 0.0
        while still_s <= STOPPED_LIMIT_S:
            if select.select([gone], [], [], POLL_S)[0]:
                janitor.wait()
                return
            still_s = still_s + POLL_S if stands_still(janitor.pid) else 0.0
    finally:
        os.close(gone)


def sweep(token: str, *, message_queues: bool = True) -> None:
    """Remove the shared memory and rendezvous files of one launch. May run twice."""
    owned = [f"{rendezvous_name(token, 0)[:-1]}*"]
    if message_queues:
        owned += [f"{shared_memory_prefix(token)}????", f"sem.{semaphore_prefix(token)}-*"]
    for place in (_SHARED_MEMORY, Path(tempfile.gettempdir())):
        for path in (path for pattern in owned for path in place.glob(pattern)):
            with suppress(FileNotFoundError, IsADirectoryError):
                path.unlink()


def stands_still(pid: int) -> bool:
    """Whether a process is stopped by a signal; a debugger's stop is not meant."""
    return _fields(pid)[:1] == ["T"]


def watch(owner: int, parent: int, token: str) -> None:
    """Until the owner is gone or a process stands still; then leave nothing."""
    told: list[int] = []
    session = _Session(owner)
    ranks: Callable[[], list[int]] = (lambda: told) if token else session.look
    memory = _Mapped()
    still_since: dict[int, float] = {}
    source = sys.stdin.buffer
    os.set_blocking(source.fileno(), False)
    pending = b""
    while True:
        if select.select([source], [], [], POLL_S)[0]:
            data = os.read(source.fileno(), 4096)
            if not data:
                break
            *lines, pending = (pending + data).split(b"\n")
            told += [int(line) for line in lines]
        members = ranks()
        watched = (owner, parent, *members)
        if not token:
            memory.look((owner, *members))
        now = time.monotonic()
        for pid in watched:
            if not stands_still(pid):
                still_since.pop(pid, None)
            else:
                still_since.setdefault(pid, now)
        if any(now - since > STOPPED_LIMIT_S for since in still_since.values()):
            break
    ended = ranks() if token else _session(owner)
    for pid in (*ended, owner):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    _wait_gone(ended)
    memory.remove()
    if token:
        sweep(token)
    remove_sockets()


def _wait_gone(pids: list[int]) -> None:
    """A rank that still runs could make a segment after the sweep."""
    deadline = time.monotonic() + STOPPED_LIMIT_S
    while time.monotonic() < deadline and any(_lives(pid) for pid in pids):
        time.sleep(POLL_S / 10)


def _session(leader: int, pids: Iterable[int] | None = None) -> list[int]:
    """The living processes of a session but its leader, of all there are or among `pids`."""
    members = [
        pid for pid in (_all_pids() if pids is None else pids) if _fields(pid)[3:4] == [str(leader)]
    ]
    return [pid for pid in members if pid != leader and _lives(pid)]


def _all_pids() -> set[int]:
    return {int(entry) for entry in os.listdir("/proc") if entry.isdigit()}


class _Session:
    """A session's processes, at a price that does not grow with the machine's: processes are born
    into a session, so only those are looked at that are new."""

    def __init__(self, leader: int) -> None:
        self._leader = leader
        self._seen: set[int] = set()
        self._members: set[int] = set()
        self._looks = 0

    def look(self) -> list[int]:
        """The living ones but the leader."""
        pids = _all_pids()
        if self._looks % _LOOKS_AT_ALL == 0:
            self._seen = set()
        self._looks += 1
        self._members.update(_session(self._leader, pids - self._seen))
        self._seen = pids
        self._members = set(_session(self._leader, self._members))
        return sorted(self._members)


def _lives(pid: int) -> bool:
    return _fields(pid)[:1] not in ([], ["Z"])


def _fields(pid: int) -> list[str]:
    """State, parent, process group, session... of proc_pid_stat(5); empty once it is gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return []


class _Mapped:
    """What processes have had mapped of /dev/shm."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._looks: list[list[str]] = [[], []]

    def look(self, pids: Iterable[int]) -> None:
        """Reading all maps takes milliseconds: only where something new is there."""
        self._looks = [*self._looks[-2:], sorted(os.listdir(_SHARED_MEMORY))]
        # A segment is there a moment before it is mapped: it is looked for twice.
        if all(look == self._looks[-1] for look in self._looks):
            return
        for pid in pids:
            with suppress(OSError):
                self._names.update(_MAPPED.findall(Path(f"/proc/{pid}/maps").read_text()))

    def remove(self) -> None:
        for name in self._names:
            (_SHARED_MEMORY / name).unlink(missing_ok=True)


if __name__ == "__main__":
    watch(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
