"""Where this machine keeps what can be made or fetched again."""

from collections.abc import Mapping
from pathlib import Path


def cache_folder(environment: Mapping[str, str]) -> Path:
    """Ours in `XDG_CACHE_HOME`, else in `~/.cache` (XDG base directories, 0.8); may not exist."""
    caches = environment.get("XDG_CACHE_HOME", "")
    home = Path(environment.get("HOME") or Path.home())
    # A relative one is to be ignored.
    return (Path(caches) if caches.startswith("/") else home / ".cache") / "shunt"
