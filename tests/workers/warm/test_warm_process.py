"""A warm process and its forks; without vLLM, which it then has not imported."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

import pytest

from tests.workers.warm.children_of_tests import leave_with, tell_surroundings, wait_for
from workers.owner_socket import ChannelError, accept, connect, listen, receive, send
from workers.warm import fitness
from workers.warm.warm_process import WarmProcess

ROOT = Path(__file__).parents[3]
DEADLINE_S = 60.0


@pytest.fixture
def warm() -> Iterator[WarmProcess]:
    process = WarmProcess({**os.environ, "PYTHONPATH": str(ROOT)})
    process.start()
    yield process
    process.close()


def _unexpected(reason: str) -> None:
    raise AssertionError(reason)


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline, "not within the deadline"
        time.sleep(0.01)


def test_a_fork_is_as_a_process_that_was_spawned(
    warm: WarmProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has our environment and directory, our pipes, and its exit code comes back."""
    monkeypatch.setenv("OF_THE_TEST", "yes")
    monkeypatch.chdir(tmp_path)
    context = warm.context(_unexpected)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=tell_surroundings, args=(sender, "OF_THE_TEST"))
    process.start()
    sender.close()
    assert receiver.recv() == (process.pid, warm.pid, "yes", str(tmp_path))
    process.join()
    assert process.exitcode == 0
    failing = context.Process(target=leave_with, args=(7,))
    failing.start()
    failing.join()
    assert failing.exitcode == 7
    assert parent_process() is None, "only a child has one"


def test_forks_outlive_it_and_the_next_process_is_started_cold(
    warm: WarmProcess, tmp_path: Path
) -> None:
    told: list[str] = []
    context = warm.context(told.append)
    running = context.Process(target=wait_for, args=(str(tmp_path / "go"),), daemon=True)
    running.start()
    os.kill(warm.pid, signal.SIGKILL)
    os.waitpid(warm.pid, 0)
    assert running.is_alive()
    cold = context.Process(target=leave_with, args=(3,))
    cold.start()
    cold.join()
    assert cold.exitcode == 3
    assert len(told) == 1
    # Its socket is not there any more, or still held by the process that it forked.
    assert re.match("nobody answers|the other end says nothing", told[0])
    running.kill()
    running.join()
    assert running.exitcode is not None


def test_another_is_started_where_it_died(warm: WarmProcess) -> None:
    warm.context(_unexpected)
    died = warm.pid
    os.kill(died, signal.SIGKILL)
    _until(lambda: not _lives(died))
    process = warm.context(_unexpected).Process(target=leave_with, args=(0,))
    process.start()
    process.join()
    assert warm.pid != died
    assert process.exitcode == 0


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "LD_PRELOAD"])
def test_what_was_decided_at_its_imports_is_not_taken_for_another(
    warm: WarmProcess, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A fork would run with the number of threads of the warm process, and say nothing."""
    told: list[str] = []
    monkeypatch.setenv(name, "" if name == "LD_PRELOAD" else "3")
    process = warm.context(told.append).Process(target=leave_with, args=(0,))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert len(told) == 1
    assert name in told[0]


def test_it_ends_with_its_owner_and_leaves_nothing(tmp_path: Path) -> None:
    script = (
        "import os, sys; from workers.warm.warm_process import WarmProcess\n"
        "w = WarmProcess(dict(os.environ)); w.start(); print(w.pid, w.door, flush=True)\n"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
        text=True,
    ) as owner:
        assert owner.stdout is not None
        pid, door = owner.stdout.readline().split()
        owner.kill()
    _until(lambda: not _lives(int(pid)))
    assert not Path(door).parent.exists()


def test_a_process_with_threads_or_cuda_is_not_forked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    same = fitness.ImportedWith(asked=os.environ, now=os.environ)
    monkeypatch.setattr(fitness, "other_threads", list)
    assert fitness.unfit_for_fork(same, os.environ) == ""
    with (tmp_path / "nvidia-uvm").open("w") as device:
        monkeypatch.setattr(fitness, "_CUDA_DEVICE", device.name)
        assert "CUDA was touched" in fitness.unfit_for_fork(same, os.environ)
    monkeypatch.undo()
    done = threading.Event()
    threading.Thread(target=done.wait).start()
    try:
        assert "threads" in fitness.unfit_for_fork(same, os.environ)
    finally:
        done.set()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
def test_the_socket_is_for_its_owner_only() -> None:
    """Even where the modes let another user in, neither end talks to the other."""
    with tempfile.TemporaryDirectory() as directory, listen(Path(directory) / "door") as listener:
        door = Path(directory) / "door"
        assert door.stat().st_mode & 0o777 == 0o600
        code = "os.setuid(65534); s.connect('door'); print('in', flush=True); s.recv(1)"
        imports = "import os, socket; s = socket.socket(socket.AF_UNIX); "
        stranger = [sys.executable, "-c", imports + code]
        # A name without a way: the folders above may be closed to others.
        refused = subprocess.run(stranger, cwd=directory, stderr=subprocess.DEVNULL)
        assert refused.returncode != 0
        door.chmod(0o777)
        door.parent.chmod(0o777)
        with subprocess.Popen(stranger, cwd=directory, stdout=subprocess.PIPE) as let_in:
            assert let_in.stdout is not None
            assert let_in.stdout.readline() == b"in\n"
            with pytest.raises(ChannelError, match="65534"):
                accept(listener, timeout_s=DEADLINE_S)


def test_a_frame_that_is_cut_or_too_large_is_refused(tmp_path: Path) -> None:
    with listen(tmp_path / "door") as listener:
        for data in (b"\0\0\0\7{", b"\xff\xff\xff\xff", b"\0\0\0\2[]", b"\0\0\0\1{"):
            client = connect(tmp_path / "door", timeout_s=DEADLINE_S)
            served = accept(listener, timeout_s=DEADLINE_S)
            client.sendall(data)
            client.close()
            with served, pytest.raises(ChannelError):
                receive(served)
        client = connect(tmp_path / "door", timeout_s=DEADLINE_S)
        with client, accept(listener, timeout_s=DEADLINE_S) as served:
            message: dict[str, Any] = {"a": [1, 2]}
            send(client, message, [0])
            received, descriptors = receive(served)
            assert received == message
            for descriptor in descriptors:
                os.close(descriptor)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
