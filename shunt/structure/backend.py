"""The grammar back ends of vLLM that a job may be given, and what they say of a constraint."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import regex
from pydantic import JsonValue

from shunt.job.job import Job
from shunt.job.sampling import StructuredOutput

CANDIDATES = ("xgrammar", "guidance")
"""In the order of preference: vLLM's own."""
CONFIG = "structured_outputs_config"
"""Engine argument of vLLM that names the back end."""


class Compiler(Protocol):
    """What tells, before anything is generated, whether a back end can enforce a constraint."""

    def problem(self, backend: str, structure: StructuredOutput) -> str:
        """Why it cannot; empty where it can, or where nothing more is known."""
        ...

    @property
    def note(self) -> str:
        """What a person should know of how constraints were looked at; empty: nothing."""
        ...


NO_WORKER = (
    "structured outputs were checked by rules alone: there is no worker environment here to "
    "compile them with"
)


@dataclass(frozen=True, slots=True)
class NoCompiler:
    """Where no back end can be asked: the rules of `schema_rules` are all that is known, and
    whether a regular expression is one."""

    note: str = ""

    def problem(self, backend: str, structure: StructuredOutput) -> str:  # noqa: ARG002
        return "" if structure.regex is None else _regex_problem(structure.regex)


@lru_cache(maxsize=1024)
def _regex_problem(pattern: str) -> str:
    try:
        regex.compile(pattern)
    except (regex.error, RecursionError, OverflowError) as error:
        return f"does not compile: {error}"
    return ""


def candidates_of(job: Job) -> tuple[str, ...]:
    """The back ends that the job's engine may have: the one it names, else `CANDIDATES`."""
    named = _given(job).get("backend")
    return CANDIDATES if named in (None, "auto") else (str(named),)


def reasons_first(job: Job) -> bool:
    """Whether the engine lets the model think before a constraint begins."""
    named = job.model.engine.extra.get("reasoning_parser")
    return bool(named or _given(job).get("reasoning_parser"))


def with_backend(job: Job, backend: str) -> Job:
    """The job with this back end for its engine; empty: as it was."""
    if not backend:
        return job
    extra = {**job.model.engine.extra, CONFIG: {**_given(job), "backend": backend}}
    engine = job.model.engine.model_copy(update={"extra": extra})
    return job.model_copy(update={"model": job.model.model_copy(update={"engine": engine})})


def _given(job: Job) -> dict[str, JsonValue]:
    """What the job says of structured outputs to the engine."""
    config = job.model.engine.extra.get(CONFIG)
    return config if isinstance(config, dict) else {}
