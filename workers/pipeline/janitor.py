"""A small process beside each node's part of a pipeline, which ends what would outlive it.

Python's and vLLM's own clean-up runs in the processes that may be killed. This one holds the other
end of a pipe: when the pipe closes, or one of the processes it was told of stands still (SIGSTOP)
for `STOPPED_LIMIT_S`, it kills them all and removes what the launch left in /dev/shm and /tmp.
Only the standard library, in a session of its own. Run as a script by `start_janitor`.
"""

import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

STOPPED_LIMIT_S = 5.0
POLL_S = 0.5


def shared_memory_prefix(token: str) -> str:
    """Start of its segments' names: nine digits in all, where Python's own have eight."""
    return f"psm_{token}"


def semaphore_prefix(token: str) -> str:
    """Start of its semaphores' names; Python's own is `mp`."""
    return f"mp{token}"


def rendezvous_name(token: str, node: int) -> str:
    """Name of the rendezvous file; vLLM names the CPU back end's shared memory after it."""
    return f"vllm_dist_{token}n{node}"


def start_janitor(token: str) -> "subprocess.Popen[bytes]":
    """Watch over this process. Write a line with a pid to its stdin for each process to come."""
    return subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, token, str(os.getpid()), str(os.getppid())],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )


def sweep(token: str, *, message_queues: bool = True) -> None:
    """Remove the shared memory and rendezvous files of one launch. May run twice."""
    owned = [f"{rendezvous_name(token, 0)[:-1]}*"]
    if message_queues:
        owned += [f"{shared_memory_prefix(token)}????", f"sem.{semaphore_prefix(token)}-*"]
    for place in (Path("/dev/shm"), Path(tempfile.gettempdir())):
        for path in (path for pattern in owned for path in place.glob(pattern)):
            with suppress(FileNotFoundError, IsADirectoryError):
                path.unlink()


def stands_still(pid: int) -> bool:
    """Whether a process is stopped by a signal; a debugger's stop is not meant."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"
    return False


def watch(token: str, owner: int, parent: int) -> None:
    """Until the owner is gone or a process stands still; then leave nothing."""
    ranks: list[int] = []
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
            ranks += [int(line) for line in lines]
        now = time.monotonic()
        for pid in (owner, parent, *ranks):
            if not stands_still(pid):
                still_since.pop(pid, None)
            else:
                still_since.setdefault(pid, now)
        if any(now - since > STOPPED_LIMIT_S for since in still_since.values()):
            break
    for pid in (*ranks, owner):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    _wait_gone(ranks)
    sweep(token)


def _wait_gone(pids: list[int]) -> None:
    """A rank that still runs could make a segment after the sweep."""
    deadline = time.monotonic() + STOPPED_LIMIT_S
    while time.monotonic() < deadline and any(Path(f"/proc/{pid}").exists() for pid in pids):
        time.sleep(POLL_S / 10)


if __name__ == "__main__":
    watch(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
