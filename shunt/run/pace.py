"""How fast a run goes, from what an observer saw at a few instants."""

from collections import deque
from dataclasses import dataclass, field

WINDOW_S = 60.0
"""Rates are means over this long: shorter jumps with every flush, longer hides an interruption."""


@dataclass(slots=True)
class Pace:
    """Feed it counts as they are seen; ask it for rates. Instants are on one monotonic clock."""

    _seen: deque[tuple[float, int, int]] = field(default_factory=deque[tuple[float, int, int]])

    def saw(self, now_s: float, *, rows: int, tokens: int) -> None:
        """Counts at this instant."""
        self._seen.append((now_s, rows, tokens))
        while len(self._seen) > 2 and now_s - self._seen[1][0] >= WINDOW_S:
            self._seen.popleft()

    @property
    def last_s(self) -> float:
        """When something was last seen."""
        return self._seen[-1][0] if self._seen else 0.0

    @property
    def tokens_per_s(self) -> float:
        return self._rate(2)

    @property
    def rows_per_s(self) -> float:
        return self._rate(1)

    def eta_s(self, rows_left: int) -> float | None:
        """Seconds to go at the present pace; None while nothing moves."""
        rate = self.rows_per_s
        return rows_left / rate if rate > 0 else None

    def _rate(self, column: int) -> float:
        if len(self._seen) < 2:
            return 0.0
        first, last = self._seen[0], self._seen[-1]
        elapsed_s = last[0] - first[0]
        return (last[column] - first[column]) / elapsed_s if elapsed_s > 0 else 0.0
