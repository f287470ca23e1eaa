"""CPU seconds of this process and its descendants, by process and thread, from /proc."""

import os
from collections.abc import Iterator
from pathlib import Path

from shunt.testing.processes import descendants

CpuTimes = dict[str, float]
"""`command/thread name` -> CPU seconds so far. Threads of one name are summed."""

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
OURS = "this"
"""The name under which this process's own threads are counted."""


def cpu_times() -> CpuTimes:
    """Now. A thread that has ended is lost; what vLLM and we measure with lives to the end."""
    times: CpuTimes = {}
    own = os.getpid()
    for pid in (own, *descendants(own)):
        for thread, cpu_s in _threads(pid):
            name = f"{OURS if pid == own else _name(pid)}/{thread}"
            times[name] = times.get(name, 0.0) + cpu_s
    return times


def spent(before: CpuTimes, after: CpuTimes) -> CpuTimes:
    """What was spent between two instants, dearest first."""
    gained = {name: seconds - before.get(name, 0.0) for name, seconds in after.items()}
    ordered = sorted(gained.items(), key=lambda item: -item[1])
    return {name: round(seconds, 3) for name, seconds in ordered if seconds > 0}


def outside_core_s(times: CpuTimes) -> float:
    """CPU seconds outside the engine core and its ranks."""
    return sum(seconds for name, seconds in times.items() if not name.startswith(CORE))


def core_s(times: CpuTimes) -> float:
    return sum(seconds for name, seconds in times.items() if name.startswith(CORE))


CORE = "VLLM::"
"""How vLLM's titles of the engine core and of its ranks begin."""


def _threads(pid: int) -> Iterator[tuple[str, float]]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
    except FileNotFoundError:
        return
    for task in tasks:
        try:
            name, _, rest = (task / "stat").read_text().partition("(")[2].rpartition(")")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended
        fields = rest.split()
        yield name, (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except FileNotFoundError:
        return "ended"
