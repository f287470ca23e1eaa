"""`make bench`: every benchmark, one after the other; each prints its table and writes its file."""

import subprocess
import sys
from pathlib import Path

NOT_BENCHMARKS = {
    "__init__",
    "__main__",
    "report",
    "tables",
    "pipeline_child",
    "throughput_child",
    "cpu_worker",
    "resume_overhead",
}
"""Modules of other uses; resume_overhead runs in the worker environment, as `make bench` does."""


def main() -> int:
    """Run them all; one that fails does not stop the next. The exit code tells."""
    status = 0
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path.stem not in NOT_BENCHMARKS:
            sys.stdout.write(f"\n== {path.stem}\n")
            sys.stdout.flush()
            status |= subprocess.call([sys.executable, "-m", f"benchmarks.{path.stem}"]) != 0
    return status


if __name__ == "__main__":
    sys.exit(main())
