"""The machines of the double: a worker process for each instance, started, restarted and killed."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from shunt.aws import tags
from shunt.fleet.worker_exit import FINAL_EXITS
from shunt.testing.ec2.imds_server import Metadata, imds_server
from shunt.testing.ec2.instance import Instance

_REPOSITORY = Path(__file__).resolve().parents[3]
_MAX_STARTS = 5


@dataclass(slots=True)
class _Machine:
    instance: Instance
    metadata: Metadata
    url: str
    process: "subprocess.Popen[bytes]"
    open: ExitStack
    starts: int = 1
    kill_at_s: float = float("inf")


@dataclass(slots=True)
class Machines:
    """What `deployments/aws` makes of an instance, as far as a process can.

    The worker is told its run by the instance's tags and reads notices from a metadata service of
    its own. It gets SIGTERM when its instance is terminated, SIGKILL when the provider takes it.
    All calls come under one lock.
    """

    worker_python: Path
    store: str
    """The workers' store configuration as JSON; the tag's URI alone would not name an endpoint."""
    environment: Mapping[str, str]
    log_directory: Path
    power_off: Callable[[Instance], None]
    """Called when a worker's end ends its machine."""
    stop_timeout_s: float = 95.0
    gpus_by_type: Mapping[str, int] = field(default_factory=dict[str, int])
    """What the machines' drivers list; one where the type is not named."""
    _machines: dict[str, _Machine] = field(default_factory=dict[str, _Machine])

    def boot(self, instance: Instance) -> None:
        opened = ExitStack()
        metadata = Metadata(tags=instance.tags, instance_id=instance.instance_id)
        url = opened.enter_context(imds_server(metadata))
        self._machines[instance.instance_id] = _Machine(
            instance, metadata, url, self._start(instance, url), opened
        )

    def end(self, instance: Instance) -> None:
        """The instance has ended: by its own worker, by us, or taken by the provider."""
        machine = self._machines[instance.instance_id]
        instance.stopped = False
        if instance.end_code.startswith("Server."):
            _kill(machine)
        elif machine.process.poll() is None:
            machine.process.terminate()
        machine.kill_at_s = time.monotonic() + self.stop_timeout_s

    def tick(self) -> None:
        """Let the machines act: notices appear, crashed workers start again, ended ones go."""
        for machine in list(self._machines.values()):
            instance = machine.instance
            machine.metadata.interruption_at = instance.notice_at
            machine.metadata.rebalance_at = instance.rebalance_at
            code = machine.process.poll()
            if instance.ended_at is None and code is not None:
                self._worker_ended(machine, code)
            elif instance.ended_at is not None and code is not None:
                self._switch_off(machine)
            elif time.monotonic() >= machine.kill_at_s:
                _kill(machine)

    def close(self) -> None:
        """Kill whatever is left."""
        for machine in list(self._machines.values()):
            _kill(machine)
            self._switch_off(machine)

    def processes(self) -> dict[str, int]:
        """Process id by instance, of the living."""
        return {
            name: machine.process.pid
            for name, machine in self._machines.items()
            if machine.process.poll() is None
        }

    def _worker_ended(self, machine: _Machine, code: int) -> None:
        if code in FINAL_EXITS or machine.starts >= _MAX_STARTS:
            self.power_off(machine.instance)
            return
        machine.starts += 1
        _close_pipe(machine.process)
        machine.process = self._start(machine.instance, machine.url)

    def _switch_off(self, machine: _Machine) -> None:
        _kill(machine)
        _close_pipe(machine.process)
        machine.open.close()
        machine.instance.stopped = True
        del self._machines[machine.instance.instance_id]

    def _start(self, instance: Instance, url: str) -> "subprocess.Popen[bytes]":
        argv = [str(self.worker_python), "-m", "workers.node"]
        argv += ["--store", self.store, "--run", instance.tags[tags.RUN]]
        argv += ["--node", instance.instance_id, "--slot", instance.tags[tags.SLOT]]
        argv += ["--address", "127.0.0.1", "--watch-imds", "--imds-url", url]
        argv += ["--gpus", str(self.gpus_by_type.get(instance.pool.instance_type, 1))]
        argv += ["--recheck"] if tags.RECHECK in instance.tags else []
        argv += ["--watch-parent"]  # no worker survives the double
        self.log_directory.mkdir(parents=True, exist_ok=True)
        with (self.log_directory / f"{instance.instance_id}.log").open("ab") as log:
            return subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**self.environment, "PYTHONPATH": str(_REPOSITORY)},
                start_new_session=True,
            )


def _kill(machine: _Machine) -> None:
    """Everything on the machine, at once; the first process leads a group of them all."""
    with suppress(ProcessLookupError):
        os.killpg(machine.process.pid, signal.SIGKILL)
    machine.process.wait()


def _close_pipe(process: "subprocess.Popen[bytes]") -> None:
    if process.stdin is not None:
        process.stdin.close()
