"""`python -m workers` with the scheduler that writes its steps down; in the worker environment."""

import sys

from vllm.platforms import current_platform  # pyright: ignore[reportMissingImports] - as above

from workers.__main__ import main
from workers.engine import engine_start


def _scheduler_class(_config: object) -> str:
    order = "" if current_platform.is_cpu() else "Async"
    return f"benchmarks.step_schedulers.CountedResume{order}Scheduler"


if __name__ == "__main__":
    setattr(engine_start, "_scheduler_class", _scheduler_class)  # noqa: B010
    sys.exit(main(sys.argv[1:]))
