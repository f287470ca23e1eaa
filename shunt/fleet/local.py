"""The local fleet: nodes are worker processes on this machine."""

import itertools
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from shunt.fleet.protocol import FleetNode, NotLaunched, one_after_another
from shunt.fleet.worker_exit import DRAIN_LIMIT_S

_GRACE_S = 5.0
"""For a worker that ends itself at the limit to be gone."""


@dataclass(frozen=True, slots=True)
class WorkerCommand:
    """How a worker is started: the same on every node but for its id and its cores."""

    argv: tuple[str, ...]
    """Up to the options that this fleet adds."""
    environment: dict[str, str]
    log_directory: Path


@dataclass(slots=True)
class _Process:
    slot: str
    popen: "subprocess.Popen[bytes]"
    killer: threading.Timer | None = None
    swept: bool = False
    """Its process group was killed after it ended; never again, as the number may be reused."""

    def poll(self) -> int | None:
        """The exit code once it has ended; whatever it left behind is killed then."""
        code = self.popen.poll()
        if code is not None and not self.swept:
            self.kill()
        return code

    def kill(self) -> None:
        """SIGKILL to the worker and to its group, which may outlive it."""
        if self.killer is not None:
            self.killer.cancel()
        if not self.swept:
            with suppress(ProcessLookupError):
                os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()
        self.swept = True


@dataclass(slots=True)
class LocalFleet:
    """Worker processes of this process, which alone owns them.

    Each gets a process group of its own and, on its stdin, a pipe whose other end only we hold:
    when we die, however we die, the pipe closes and the worker drains and leaves. Use as a context
    manager: leaving it ends them all.
    """

    command: WorkerCommand
    run_tag: str
    """Makes node ids unique over the processes that ever worked on the run."""
    num_slots: int
    devices: tuple[str, ...] = ()
    """GPUs of this machine, as CUDA_VISIBLE_DEVICES names them; none: workers get no say of any."""
    drain_timeout_s: float = DRAIN_LIMIT_S + _GRACE_S
    """Workers end themselves before."""
    _processes: dict[str, _Process] = field(default_factory=dict[str, _Process])
    _counter: "itertools.count[int]" = field(default_factory=itertools.count)

    def __enter__(self) -> "LocalFleet":
        return self

    def __exit__(self, *exc: object) -> None:
        self.terminate()

    def nodes(self) -> Sequence[FleetNode]:
        return [
            FleetNode(node_id, process.slot, process.poll())
            for node_id, process in self._processes.items()
        ]

    def launch(self, slot: str) -> str:
        node_id = f"{self.run_tag}-{slot}-{next(self._counter)}"
        self.command.log_directory.mkdir(parents=True, exist_ok=True)
        number = int(slot.rsplit("-", 1)[-1])
        cores = cores_of(number, self.num_slots, sorted(os.sched_getaffinity(0)))
        environment = {**self.command.environment, "OMP_NUM_THREADS": str(len(cores))}
        sharing: list[str] = []
        if self.devices:
            own = devices_of(number, self.num_slots, self.devices)
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(own)
            engines = engines_per_device(self.num_slots, len(self.devices))
            sharing = ["--engines-per-device", str(engines)]
        with (self.command.log_directory / f"{node_id}.log").open("wb") as log:
            popen = subprocess.Popen(
                [
                    *self.command.argv,
                    "--node",
                    node_id,
                    "--cores",
                    _joined(cores),
                    "--watch-parent",
                    *sharing,
                ],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        self._processes[node_id] = _Process(slot, popen)
        return node_id

    def launch_many(self, slots: Sequence[str]) -> Iterator[tuple[str, str | NotLaunched]]:
        return one_after_another(self.launch, slots)

    def vacate(self, node_id: str) -> None:
        """Nothing to note: every launch starts a new process."""

    def interrupt(self, node_id: str, *, notice_s: float | None) -> None:
        process = self._processes[node_id]
        if process.poll() is not None:
            return
        if notice_s is None:
            process.kill()
            return
        process.popen.send_signal(signal.SIGTERM)
        process.killer = threading.Timer(notice_s, process.popen.kill)
        process.killer.daemon = True
        process.killer.start()

    def terminate(self) -> None:
        """SIGTERM to all, so that they save and leave; SIGKILL to what is left in the end."""
        living = [process for process in self._processes.values() if process.poll() is None]
        for process in living:
            process.popen.send_signal(signal.SIGTERM)
        deadline_s = time.monotonic() + self.drain_timeout_s
        for process in living:
            with suppress(subprocess.TimeoutExpired):
                process.popen.wait(max(0.0, deadline_s - time.monotonic()))
        for process in self._processes.values():
            process.kill()
            if process.popen.stdin is not None:
                process.popen.stdin.close()


def devices_of(slot: int, num_slots: int, devices: Sequence[str]) -> list[str]:
    """The slot's GPUs: as many for each, and nobody else's while there are enough."""
    if num_slots > len(devices):
        return [devices[slot % len(devices)]]
    each = len(devices) // num_slots
    return list(devices[slot * each : (slot + 1) * each])


def engines_per_device(num_slots: int, num_devices: int) -> int:
    """How many workers share the GPU that most share."""
    return -(-num_slots // num_devices)


def cores_of(slot: int, num_slots: int, cores: Sequence[int]) -> list[int]:
    """The slot's share of the cores, in one piece: disjoint shares while there are enough."""
    if num_slots > len(cores):
        return [cores[slot % len(cores)]]
    return list(cores[slot * len(cores) // num_slots : (slot + 1) * len(cores) // num_slots])


def _joined(cores: list[int]) -> str:
    return ",".join(map(str, cores))
