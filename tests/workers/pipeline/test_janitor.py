"""What the janitor removes of processes that cannot do so themselves. Without vLLM."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.workers.pipeline.holding import until_gone
from tests.workers.pipeline.processes import ROOT
from workers.pipeline.janitor import POLL_S, STOPPED_LIMIT_S

GONE_S = 10.0

_OWNER = """
import os, subprocess, sys, time
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from workers.pipeline.janitor import place_sockets, start_janitor
os.setsid()
directory = place_sockets()
(Path(directory) / "socket").touch()
janitor = start_janitor()
mine = SharedMemory(create=True, size=8)
rank = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE, text=True)
print(directory, janitor.pid, rank.pid, mine.name, rank.stdout.readline().strip(), flush=True)
time.sleep(600)
"""
_RANK = """
import time
from multiprocessing.shared_memory import SharedMemory
memory = SharedMemory(create=True, size=8)
print(memory.name, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("all_killed", [True, False])
def test_a_session_that_is_killed_or_stands_still_leaves_nothing(
    tmp_path: Path, all_killed: bool
) -> None:
    """Even Python's own trackers of shared memory may be killed."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", _OWNER, _RANK],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    ) as owner:
        assert owner.stdout is not None
        try:
            directory, janitor, rank, *names = owner.stdout.readline().split()
            memory = [Path("/dev/shm", name) for name in names]
            assert len([path for path in memory if path.exists()]) == 2
            time.sleep(2 * POLL_S)  # what was made since its last look, it does not know
            if all_killed:
                os.killpg(owner.pid, signal.SIGKILL)
            else:
                os.kill(int(rank), signal.SIGSTOP)
            assert owner.wait(STOPPED_LIMIT_S + GONE_S) == -signal.SIGKILL
            assert not until_gone([int(rank), int(janitor)])
        finally:
            owner.kill()
    assert not [path for path in memory if path.exists()]
    assert not Path(directory).exists()
