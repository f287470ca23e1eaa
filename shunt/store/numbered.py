"""Numbered objects under one prefix, of which the newest stands."""

from shunt import keys
from shunt.store.protocol import Store


def newest_number(store: Store, prefix: str) -> int:
    """0 where there is none."""
    return max(map(keys.number, store.list(prefix)), default=0)
