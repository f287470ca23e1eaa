"""Waiting out a store that is away: how long, and what is said meanwhile."""

import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from shunt.store.errors import StoreDenied, StoreError, StoreFull, StoreUnavailable

STORE_PATIENCE_S = 900.0
"""How long controllers and workers go on without their store. It is one figure for both: a fleet
that its controller ends sooner loses what its workers would have saved."""

AWAY = (StoreUnavailable, StoreFull, StoreDenied)
"""What may pass. A refusal is among them: credentials lapse and are renewed, and a policy takes
seconds to reach every server. Whoever begins finds a refusal that stays before it buys anything."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Patience:
    """Lets errors of an absent store pass until they have lasted too long. For one thread."""

    monotonic: Callable[[], float]
    now: Callable[[], datetime]
    tell: Callable[[str], None]
    """Told once when the store goes away and once when it is back."""
    limit_s: float = STORE_PATIENCE_S
    _since_s: float | None = None
    _since: datetime | None = None

    @property
    def away(self) -> bool:
        """Whether the store was not reached at the last attempt."""
        return self._since_s is not None

    @contextmanager
    def waiting(self) -> Generator[None]:
        """A block that may be left at any store call and is done again later.

        Raises the store's error, with the time since when, once it has lasted `limit_s`.
        """
        began_s, began = self.monotonic(), self.now()
        try:
            yield
        except AWAY as error:
            if self._since_s is None:
                self._since_s, self._since = began_s, began
                self.tell(f"{self._told()}; the nodes work on ({error})")
            for_s = self.monotonic() - self._since_s
            log.warning("%s for_s=%.0f: %s", self._told(), for_s, error)
            if for_s >= self.limit_s:
                raise _told_since(error, f"{self._told()}, for {for_s:.0f} s") from error

    def reached(self) -> None:
        """The store has answered."""
        if self._since_s is not None:
            for_s = self.monotonic() - self._since_s
            self.tell(f"the store answers again, after {for_s:.0f} s")
        self._since_s = self._since = None

    def _told(self) -> str:
        assert self._since is not None
        return f"the store has not been reached since {self._since:%Y-%m-%d %H:%M:%S} UTC"


def _told_since(error: StoreError, since: str) -> StoreError:
    return type(error)(f"{error}; {since}", uri=error.uri, key=error.key)
