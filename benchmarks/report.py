"""Where a benchmark's rows go: a table on the terminal and `benchmarks/results/<name>.json`.

The tables of README and docs are made from these files, so that they cannot drift.
"""

import json
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Row:
    """One measured number.

    `spread` is (lowest, highest) over the repeats, `reference` the same number of what it is
    compared with in the same run, `target` the bound it should keep and `met` whether it does.
    """

    metric: str
    value: float
    unit: str
    spread: tuple[float, float] | None = None
    reference: float | None = None
    target: str | None = None
    met: bool | None = None


def paired_ratio(
    metric: str, ours: Sequence[float], theirs: Sequence[float], *, at_least: float
) -> Row:
    """The median of ours over theirs, round by round: neighbours in time share the machine."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    ratio = statistics.median(ratios)
    spread = (min(ratios), max(ratios))
    return Row(metric, ratio, "ratio", spread, 1.0, f">= {at_least}", ratio >= at_least)


def write(name: str, rows: Sequence[Row]) -> Path:
    """Print the rows and write the benchmark's file; returns its path. A miss stays a miss."""
    record = {
        "name": name,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": _machine(),
        "command": f"python -m benchmarks.{name} {' '.join(sys.argv[1:])}".strip(),
        "commit": _commit(),
        "rows": [asdict(row) for row in rows],
    }
    print(_table(rows))
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(record, indent=2) + "\n")
    return path


def _table(rows: Sequence[Row]) -> str:
    header = ("metric", "value", "unit", "spread", "reference", "target", "met")
    lines = [header, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.metric,
        f"{row.value:.4g}",
        row.unit,
        "" if row.spread is None else f"{row.spread[0]:.4g} to {row.spread[1]:.4g}",
        "" if row.reference is None else f"{row.reference:.4g}",
        row.target or "",
        {None: "", True: "yes", False: "NO"}[row.met],
    )


def _machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    model = models[0] if models else platform.machine()
    return f"{model}, {len(models)} cores, {platform.system()} {platform.release()}"


def _commit() -> str:
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return described.stdout.strip() or "unknown"
