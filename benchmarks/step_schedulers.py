"""The counting schedulers by name, as vLLM imports them; in the engine core of a benchmark only."""

from benchmarks.step_log import counted
from workers.engine.private.core import AsyncScheduler, Scheduler
from workers.engine.resume_scheduler import ResumeAsyncScheduler, ResumeScheduler

CountedScheduler = counted(Scheduler)
CountedAsyncScheduler = counted(AsyncScheduler)
CountedResumeScheduler = counted(ResumeScheduler)
CountedResumeAsyncScheduler = counted(ResumeAsyncScheduler)
