"""The followers of a pipeline whose node slots are all on this machine."""

import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace

from workers.engine.config import EngineConfig
from workers.pipeline.checks import PipelineRefused
from workers.pipeline.follower_spec import FollowerSpec
from workers.pipeline.link import JOIN_DEADLINE_S, RETRY_S, refuse_head
from workers.pipeline.stage_map import StageMap

_LEAVE_S = 10.0
"""A follower whose head has stopped ends its ranks and leaves."""


@dataclass(slots=True)
class LocalFollowers:
    """One process per node but the head, for one launch. Ends with `close`, or with this process.

    Each holds the other end of a pipe from us, so that it does not outlive us.
    """

    config: EngineConfig
    stages: StageMap
    device: str
    _closing: threading.Event = field(default_factory=threading.Event)
    _processes: list["subprocess.Popen[bytes]"] = field(
        default_factory=list["subprocess.Popen[bytes]"]
    )

    def start(self) -> None:
        for node in range(1, self.stages.num_nodes):
            stages = replace(self.stages, node=node)
            spec = FollowerSpec(self.config, stages, self.device, JOIN_DEADLINE_S)
            command = [sys.executable, "-m", "workers.pipeline", spec.as_json(), "--watch-parent"]
            process = subprocess.Popen(command, stdin=subprocess.PIPE)
            self._processes.append(process)
            name = f"follower-{node}-watch"
            threading.Thread(
                target=self._watch, args=(node, process), name=name, daemon=True
            ).start()

    def _watch(self, node: int, process: "subprocess.Popen[bytes]") -> None:
        """A head that waits for a process which has ended is told; one that runs notices itself."""
        reason = f"its process ended with {process.wait()}"
        address = (self.stages.addresses[0], self.stages.link_port)
        # Not a moment longer than this launch: the next may have the port.
        while not self._closing.wait(RETRY_S):
            with suppress(PipelineRefused):
                return refuse_head(address, node, reason, deadline_s=0.0)

    def close(self) -> None:
        """They leave by themselves when their head does; whoever does not is killed."""
        self._closing.set()
        until = time.monotonic() + _LEAVE_S
        for process in self._processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, until - time.monotonic()))
        for process in self._processes:
            process.kill()
            process.wait()
            assert process.stdin is not None
            process.stdin.close()
        self._processes.clear()
