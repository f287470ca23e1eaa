"""The course of a node: when its state changed, and a curve of what it made, in few numbers.

A heartbeat is overwritten, so what a report draws has to be in the last one. Few enough numbers to
ride along with every heartbeat: some 2 kB, whatever the length of the run.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

MOST_SAMPLES = 64
"""Of a curve; each second one is left out when there are more, so the curve covers it all."""
MOST_TURNS = 48
"""Changes of state; a node that idles and works by turns keeps the latest."""


_EVERY_S = 1.5
"""Between two samples at first: less than between two heartbeats, of which some come early."""


class NodeState(StrEnum):
    STARTING = "starting"
    """The engine is loading."""
    RUNNING = "running"
    IDLE = "idle"
    """Waiting for shards that others hold."""
    DRAINING = "draining"
    ENDED = "ended"


class Sample(NamedTuple):
    """Counts at an instant, in seconds since the node started. Tokens: generated, saved or not."""

    at_s: float
    tokens: int
    rows_finished: int
    running: int


class Turn(NamedTuple):
    """From this instant on, in seconds since the node started, the node was in this state."""

    at_s: float
    state: NodeState


class NodeCourse(BaseModel):
    """What a node has been through. Empty for nodes of earlier versions."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    turns: tuple[Turn, ...] = ()
    samples: tuple[Sample, ...] = ()


@dataclass(slots=True)
class CourseKeeper:
    """Fed at each heartbeat, by the node itself."""

    _turns: list[Turn] = field(default_factory=list[Turn])
    _samples: list[Sample] = field(default_factory=list[Sample])
    _every_s: float = _EVERY_S
    """Doubled whenever there are too many."""

    def saw(self, state: NodeState, sample: Sample) -> NodeCourse:
        """The course up to and with this instant. The latest sample is always in it."""
        if not self._turns or self._turns[-1].state is not state:
            self._turns.append(Turn(sample.at_s, state))
        if len(self._turns) > MOST_TURNS:
            del self._turns[1]  # the first one says when the node began
        if not self._samples or sample.at_s - self._samples[-1].at_s >= self._every_s:
            self._samples.append(sample)
        if len(self._samples) > MOST_SAMPLES:
            self._samples = self._samples[::2]
            self._every_s *= 2
        latest = () if self._samples[-1] == sample else (sample,)
        return NodeCourse(turns=tuple(self._turns), samples=(*self._samples, *latest))
