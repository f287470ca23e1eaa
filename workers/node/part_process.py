"""The processes of a node's parts: a worker where a pipeline begins, followers where it goes on."""

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Protocol

from shunt.fleet.worker_exit import WorkerExit
from shunt.job.job import Job
from shunt.plan.launch import PipelineLaunch, newest_launch
from shunt.plan.seat import Seat, read_seats
from shunt.run.node_status import NodeState, read_status, worker_id, write_failure
from shunt.store.protocol import Store
from workers.engine.config import engine_environment
from workers.node.parts import Part
from workers.node.replicas import Replica
from workers.pipeline.checks import PipelineRefused
from workers.pipeline.follower_spec import FollowerSpec
from workers.pipeline.launch import stage_map
from workers.pipeline.link import JOIN_DEADLINE_S
from workers.setup import engine_config, threads_per_rank, with_pipeline

STORE_POLL_S = 2.0
"""Each look is a request that costs, on every node and for hours."""
_BLIND_S = 30.0
_AGAIN = (WorkerExit.DRAINED,)
_BEATING = (NodeState.RUNNING, NodeState.IDLE)
_BEFORE_BEATING = (None, NodeState.STARTING, NodeState.ENDED)
"""What is read of a worker whose engine is not up yet: nothing, its own word, or the last one of
the process before it."""
_LONGEST_PAUSE_S = 60.0

log = logging.getLogger(__name__)

Process = subprocess.Popen[bytes]


class PartProcess(Protocol):
    """What serves one part of a node."""

    done: bool
    """Nothing of the run is left to do."""
    crash: int
    """How its process failed by an error of ours; 0 while none has."""

    @property
    def part(self) -> Part | Replica: ...

    @property
    def lives(self) -> bool: ...

    def step(self) -> None:
        """Look after it: start what should run. Raises `StoreUnavailable`."""
        ...

    def leave(self) -> None:
        """Nothing new from now on; what runs ends in order."""
        ...

    def kill(self) -> None: ...


@dataclass(frozen=True, slots=True)
class NodeSetting:
    """What all parts of a node know."""

    store: Store
    run_id: str
    job: Job
    own: Seat
    worker_options: Sequence[str]
    """Of `python -m workers`: store, run and what else is the same for all."""
    environment: Mapping[str, str]
    cores: int
    monotonic: Callable[[], float]
    silent_s: float = 180.0
    """A worker that has an engine and is not heard of for so long hangs, and is ended."""
    silent_start_s: float = 1800.0
    """The same while its engine starts: a large model takes minutes in which nobody says a word."""
    now: Callable[[], datetime] = lambda: datetime.now(UTC)


@dataclass(slots=True)
class HeadProcess:
    """A worker that heads a pipeline, or is a replica. Started again where it drained without being
    told by us: a partner was lost, and it waits for another. A replica that crashes is started
    again, too, while the others of its node work on: as often in a row as the job's `max_crashes`,
    and counted anew once it has saved something."""

    part: Part | Replica
    setting: NodeSetting
    done: bool = False
    crash: int = 0
    _process: Process | None = None
    _leaving: bool = False
    _name: str = ""
    _heard: tuple[datetime | None, float] = (None, 0.0)
    _looked_s: float = 0.0
    _crashes: int = 0
    """In a row."""
    _starts_at_s: float = 0.0

    @property
    def lives(self) -> bool:
        return self._process is not None or self._crashes > 0

    def step(self) -> None:
        if self._process is not None:
            code = self._process.poll()
            if code is None:
                if self._hangs():
                    self._end_hanging(self._process)
                return
            saved = self._has_saved()
            _close(self._process)
            self._process = None
            log.info("worker of part %d ended with %d", self.part.number, code)
            self.done = code == WorkerExit.DONE
            cut_short = self._leaving and code == -signal.SIGTERM  # told as it was about to end
            if not (self.done or cut_short or code in _AGAIN):
                self._crashed(code if code > 0 else WorkerExit.BUG, saved=saved)
        if self.done or self.crash or self._leaving:
            self._crashes = 0
        elif self.setting.monotonic() >= self._starts_at_s:
            self._start()

    def leave(self) -> None:
        if not self._leaving and self._process is not None:
            self._process.terminate()
        self._leaving = True
        self._crashes = 0

    def _has_saved(self) -> bool:
        status = read_status(self.setting.store, self.setting.run_id, self._name)
        return status is not None and status.segments > 0

    def _crashed(self, code: int, *, saved: bool) -> None:
        self._crashes = 1 if saved else self._crashes + 1
        may_try = isinstance(self.part, Replica) and code != WorkerExit.UNFIT
        if not may_try or self._crashes > self.setting.job.fleet.max_crashes:
            self.crash, self._crashes = code, 0
            return
        pause_s = min(_LONGEST_PAUSE_S, 2.0**self._crashes)
        self._starts_at_s = self.setting.monotonic() + pause_s
        log.error("replica %s crashed %d times in a row: again", self._name, self._crashes)

    def kill(self) -> None:
        _kill(self._process)

    def _hangs(self) -> bool:
        """Whether its heartbeat stands still, for longer while its engine starts."""
        now_s, looked_s = self.setting.monotonic(), self._looked_s
        if now_s - looked_s < STORE_POLL_S:
            return False
        status = read_status(self.setting.store, self.setting.run_id, self._name)
        said_at, state = (None, None) if status is None else (status.updated_at, status.state)
        self._looked_s = now_s
        blind = now_s - looked_s > _BLIND_S  # the store was out of reach, for the worker as well
        if said_at != self._heard[0] or blind:
            self._heard = (said_at, now_s)
        silent_s = now_s - self._heard[1]
        if state in _BEFORE_BEATING:
            return silent_s > self.setting.silent_start_s
        return state in _BEATING and silent_s > self.setting.silent_s

    def _end_hanging(self, process: Process) -> None:
        """Kill it, and say in the store why it ended: it cannot any more."""
        log.error("worker %s is not heard of any more: killed", self._name)
        process.kill()
        silent_s = self.setting.monotonic() - self._heard[1]
        write_failure(
            self.setting.store,
            self.setting.run_id,
            self._name,
            pid=process.pid,
            at=self.setting.now(),
            exit_code=WorkerExit.BUG,
            failure=f"its process was not heard of for {silent_s:.0f} s, and its node killed it: "
            "its log says what it did last",
        )

    def _start(self) -> None:
        setting = self.setting
        self._heard = (None, setting.monotonic())
        self._name = name = worker_id(setting.own.node_id, self.part.number)
        self._process = _spawn(
            [
                "workers",
                *setting.worker_options,
                "--node",
                name,
                *self._own_options(),
            ],
            {**setting.environment, **self._own_environment()},
        )

    def _own_options(self) -> list[str]:
        if isinstance(self.part, Replica):
            cores = ",".join(map(str, self.part.cores(sorted(os.sched_getaffinity(0)))))
            return ["--replicas", str(self.part.of_node), "--cores", cores]
        seat, pipeline = self.setting.own, self.part.pipeline
        return ["--seat", seat.model_dump_json(), "--pipeline", pipeline.model_dump_json()]

    def _own_environment(self) -> dict[str, str]:
        if isinstance(self.part, Replica):
            return {"CUDA_VISIBLE_DEVICES": ",".join(self.part.devices)}
        return {}


@dataclass(slots=True)
class FollowerProcess:
    """Joins every launch of its pipeline that names this node, one process for each."""

    part: Part
    setting: NodeSetting
    done: bool = False
    crash: int = 0
    _process: Process | None = None
    _leaving: bool = False
    _seen: int = 0
    _next_look_s: float = 0.0
    _heads: dict[str, Seat] = field(default_factory=dict[str, Seat])

    @property
    def lives(self) -> bool:
        return self._process is not None

    def step(self) -> None:
        if self._process is not None and (code := self._process.poll()) is not None:
            _close(self._process)
            self._process = None
            log.info("part %d of launch %d ended with %d", self.part.number, self._seen, code)
        now_s = self.setting.monotonic()
        if self._leaving or now_s < self._next_look_s:
            return
        self._next_look_s = now_s + STORE_POLL_S
        store, run_id = self.setting.store, self.setting.run_id
        launch = newest_launch(store, run_id, self.part.pipeline.place, after=self._seen)
        if launch is not None:
            self._seen = launch.number
            self._follow(launch)
        elif self._process is None:
            self.done = self._head_is_done()

    def leave(self) -> None:
        """The head sees that this node leaves, saves what it has, and ends the launch."""
        self._leaving = True

    def kill(self) -> None:
        _kill(self._process)

    def _follow(self, launch: PipelineLaunch) -> None:
        self.kill()  # whatever is left of an older launch: its head is gone
        self._process = None
        if self.setting.own not in launch.seats:
            log.info("launch %d is for another node of our slot", launch.number)
        elif self.setting.job.model.engine_kind == "vllm":
            try:
                spec = self._spec(launch)
            except PipelineRefused as error:
                log.error("part %d: %s", self.part.number, error)
                self.crash = WorkerExit.BUG
                return
            self._process = _spawn(["workers.pipeline", spec.as_json()], self._environment(launch))

    def _spec(self, launch: PipelineLaunch) -> FollowerSpec:
        config = engine_config(with_pipeline(self.setting.job, launch.pipeline))
        stages = stage_map(
            launch.pipeline,
            {seat.slot: seat.address for seat in launch.seats},
            model_path=config.model_path,
            number=launch.link_number,
        )
        index = launch.seats.index(self.setting.own)
        return FollowerSpec(config, replace(stages, node=index), "", JOIN_DEADLINE_S)

    def _environment(self, launch: PipelineLaunch) -> dict[str, str]:
        job = with_pipeline(self.setting.job, launch.pipeline)
        return {
            **self.setting.environment,
            **engine_environment(
                threads=threads_per_rank(job, self.setting.cores),
                kv_cache_gib=job.model.engine.cpu_kv_cache_gib,
            ),
        }

    def _head_is_done(self) -> bool:
        """Whether a node that the pipeline begins on says that nothing is left to do for it."""
        store, run_id = self.setting.store, self.setting.run_id
        first = self.part.pipeline.stages[0]
        read_seats(store, run_id, first.slot, into=self._heads)
        for seat in self._heads.values():
            status = read_status(store, run_id, seat.node_id)
            if status is not None and first.first_gpu in status.done_parts:
                return True
        return False


def process_of(part: Part | Replica, setting: NodeSetting) -> PartProcess:
    if isinstance(part, Replica) or part.heads:
        return HeadProcess(part, setting)
    return FollowerProcess(part, setting)


def _spawn(arguments: list[str], environment: Mapping[str, str]) -> Process:
    """A process that ends when we do: it watches its stdin."""
    log.info("starts: %s", json.dumps(arguments[:1]))
    command = [sys.executable, "-m", *arguments, "--watch-parent"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, env=dict(environment))


def _kill(process: Process | None) -> None:
    if process is not None:
        process.kill()
        process.wait()
        _close(process)


def _close(process: Process) -> None:
    assert process.stdin is not None
    process.stdin.close()
