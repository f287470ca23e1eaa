"""The followers of a pipeline whose node slots are all on this machine."""

import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace

from workers.engine.config import EngineConfig
from workers.pipeline.executor import JOIN_DEADLINE_S
from workers.pipeline.follower_spec import FollowerSpec
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
    _processes: list["subprocess.Popen[bytes]"] = field(
        default_factory=list["subprocess.Popen[bytes]"]
    )

    def start(self) -> None:
        for node in range(1, self.stages.num_nodes):
            stages = replace(self.stages, node=node)
            spec = FollowerSpec(self.config, stages, self.device, JOIN_DEADLINE_S)
            command = [sys.executable, "-m", "workers.pipeline", spec.as_json(), "--watch-parent"]
            self._processes.append(subprocess.Popen(command, stdin=subprocess.PIPE))

    def close(self) -> None:
        """They leave by themselves when their head does; whoever does not is killed."""
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
