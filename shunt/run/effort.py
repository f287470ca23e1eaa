"""How much work is left, in seconds of a fleet as wanted: from tokens, not from the last minute."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from shunt.job.job import Job
from shunt.run.node_status import NodeState, NodeStatus
from shunt.run.status import RunStatus

MEMORY_S = 3600.0
"""Busy seconds of a worker after which what was seen before them counts by a third (1/e)."""

_UNLIMITED_ANSWER_TOKENS = 1024
"""A first guess of what a row without `max_tokens` makes, until rows have ended."""


def answer_tokens(job: Job) -> int:
    """What a row makes at most, by the job's defaults."""
    return job.sampling.max_tokens or _UNLIMITED_ANSWER_TOKENS


@dataclass(slots=True)
class Effort:
    """Feed it every status; ask it for what is left.

    Its rate is tokens per second of a worker that has work. So it stands still while nodes are
    lost, start or wait, and a fleet that recovers does not look like a slow one.
    """

    max_tokens: int
    """Of a row at most: what a row is expected to take before any has ended."""
    _tokens: float = 0.0
    _busy_s: float = 0.0
    _last_s: float | None = None
    _last_tokens: int = 0

    def saw(self, now_s: float, status: RunStatus) -> None:
        """The counts at this instant of one monotonic clock."""
        tokens = sum(n.tokens_made for n in _workers(status.nodes))
        if self._last_s is not None:
            busy_s = (now_s - self._last_s) * num_busy(status)
            kept = math.exp(-busy_s / (MEMORY_S * max(1, num_busy(status))))
            self._tokens = self._tokens * kept + max(0, tokens - self._last_tokens)
            self._busy_s = self._busy_s * kept + busy_s
        self._last_s, self._last_tokens = now_s, max(tokens, self._last_tokens)

    def left_s(self, status: RunStatus, num_workers: int) -> float | None:
        """Seconds of so many workers, all at work; None while no token was seen to be made."""
        if self._tokens <= 0 or self._busy_s <= 0 or num_workers < 1:
            return None
        return self.tokens_left(status) * self._busy_s / self._tokens / num_workers

    def tokens_left(self, status: RunStatus) -> float:
        """Of the rows that are not terminal, without what is generated of them."""
        ended = [shard for shard in status.shards if shard.done]
        rows = sum(s.num_rows - s.num_error_rows - s.num_reused_rows for s in ended)
        whole = sum(shard.num_output_tokens for shard in ended)
        a_row = whole / rows if rows and whole else self._of_ended_rows(status)
        open_rows = status.rows_left
        began = sum(n.tokens_made for n in _workers(status.nodes)) - whole
        return max(open_rows * a_row - max(0, began), open_rows * 1.0)

    def _of_ended_rows(self, status: RunStatus) -> float:
        """Too many rather than too few: tokens of rows that still run count to those that ended."""
        workers = _workers(status.nodes)
        rows = sum(node.rows_finished for node in workers)
        tokens = sum(node.output_tokens for node in workers)
        return min(self.max_tokens, tokens / rows) if rows and tokens else float(self.max_tokens)


def num_busy(status: RunStatus) -> int:
    """Workers that hold a shard and whose end nobody saw."""
    return sum(n.state is NodeState.RUNNING and bool(n.shards) for n in status.living)


def _workers(nodes: Sequence[NodeStatus]) -> list[NodeStatus]:
    return [node for node in nodes if not node.slot]
