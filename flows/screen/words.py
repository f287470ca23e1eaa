"""How counts, durations and sizes are said, and consoles that do not wrap what a program reads."""

from datetime import timedelta

from rich.console import Console

_UNBROKEN = 100_000
"""Columns of a console that no terminal limits: nothing is wrapped there."""


def console(*, stderr: bool = False) -> Console:
    """A console of the terminal's width; where there is no terminal, lines are left whole."""
    made = Console(stderr=stderr)
    return made if made.is_terminal else Console(stderr=stderr, width=_UNBROKEN)


def counted(count: int, word: str) -> str:
    """`1 row`, `2 rows`, `1,000 rows`."""
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"


def duration(seconds: float | None) -> str:
    """`0:01:05`; `-` where it is not known."""
    return "-" if seconds is None else str(timedelta(seconds=round(seconds)))


def size(num_bytes: float) -> str:
    """In the unit that leaves one to three digits before the point: `512 B`, `1.2 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} TB"
