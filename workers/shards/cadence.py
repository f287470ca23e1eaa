"""When the next segment of a shard is due."""

from dataclasses import dataclass

LOSS_SHARE = 1 / 16
"""A segment may cover at most this share of the time that the shard has been worked on.

So the interval grows with the shard's age and the number of segments stays logarithmic in it: with
an interval of 10 s, 24 in five minutes, 58 in half an hour, 69 in an hour; and no sudden death ever
costs more than one interval or a sixteenth of the shard's time, whichever is longer.
"""


@dataclass(slots=True)
class Cadence:
    """Flush every `interval_s`, or sooner once `tokens` new tokens are waiting."""

    interval_s: float
    tokens: int
    started_s: float
    """Instants are on the worker's monotonic clock."""
    flushed_s: float

    def due(self, now_s: float, unsaved_tokens: int) -> bool:
        elapsed, patience = now_s - self.flushed_s, self._patience_s()
        if elapsed >= patience:
            return True
        return unsaved_tokens >= self.tokens and elapsed >= patience / 4

    def ripe(self, now_s: float) -> bool:
        """Whether it is worth counting the unsaved tokens: sooner, no number of them is due."""
        return now_s - self.flushed_s >= self._patience_s() / 4

    def flushed(self, now_s: float) -> None:
        self.flushed_s = now_s

    def _patience_s(self) -> float:
        return max(self.interval_s, (self.flushed_s - self.started_s) * LOSS_SHARE)
