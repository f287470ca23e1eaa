"""`make bench`: every benchmark, one after the other; each prints its table and writes its file."""

import subprocess
import sys
from pathlib import Path

NOT_BENCHMARKS = {
    "__init__",
    "__main__",
    "cpu_time",
    "report",
    "step_log",
    "step_schedulers",
    "tables",
    "pipeline_child",
    "throughput_child",
    "cpu_worker",
    "resume_overhead",
    "workloads",
}
"""Modules of other uses; resume_overhead runs in the worker environment, as `make bench` does."""

PACKAGES = {"peers"}
"""Benchmarks of several modules."""


def main() -> int:
    """Run them all; one that fails does not stop the next. The exit code tells."""
    status = 0
    names = {path.stem for path in Path(__file__).parent.glob("*.py")} - NOT_BENCHMARKS
    for name in sorted(names | PACKAGES):
        sys.stdout.write(f"\n== {name}\n")
        sys.stdout.flush()
        status |= subprocess.call([sys.executable, "-m", f"benchmarks.{name}"]) != 0
    return status


if __name__ == "__main__":
    sys.exit(main())
