"""The counting schedulers by name, as vLLM imports them; in the engine core of a benchmark only."""

from benchmarks.step_log import counted
from workers.engine.private.core import (  # in the worker environment only
    AsyncScheduler,  # pyright: ignore[reportAttributeAccessIssue]
    Scheduler,  # pyright: ignore[reportAttributeAccessIssue]
)
from workers.engine.resume_scheduler import ResumeAsyncScheduler, ResumeScheduler

CountedScheduler = counted(Scheduler)
CountedAsyncScheduler = counted(AsyncScheduler)
CountedResumeScheduler = counted(ResumeScheduler)
CountedResumeAsyncScheduler = counted(ResumeAsyncScheduler)
