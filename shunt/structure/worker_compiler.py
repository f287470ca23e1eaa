"""Asks the worker environment, which has the engine's grammar back ends, whether they take a
constraint."""

import json
import os
import queue
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

from shunt.job.sampling import StructuredOutput

MODULE = "workers.grammars"
ANSWER_S = 30.0
"""For one constraint. An engine would compile it while other rows wait."""
START_S = 600.0
"""Importing vLLM takes 5 to 20 s; a machine that is busy gets more."""
PATIENCE_S = 300.0
"""For all constraints that took `ANSWER_S` together; then nothing more is compiled."""
_TOO_LONG = f"takes over {ANSWER_S:.0f} s to compile"


class _Silent(Exception):
    """The process gave no answer: it ended, or it is still at it."""


@dataclass(slots=True)
class WorkerCompiler:
    """A `Compiler` over a process of the worker environment, started at the first question.

    Use as a context manager: the process ends with it.
    """

    python: Path
    model_path: str
    environment: Mapping[str, str]
    answer_s: float = ANSWER_S
    _process: "_Process | None" = None
    _lost_s: float = 0.0
    _why_not: str = ""

    def __enter__(self) -> "WorkerCompiler":
        return self

    def __exit__(self, *_exception: object) -> None:
        self._end()

    @property
    def note(self) -> str:
        if not self._why_not:
            return ""
        return f"structured outputs were not all compiled before the run: {self._why_not}"

    def problem(self, backend: str, structure: StructuredOutput) -> str:
        if self._why_not:
            return ""
        if self._process is None and not self._start():
            return ""
        assert self._process is not None
        given = structure.model_dump(by_alias=True, exclude_none=True)
        began = time.monotonic()
        try:
            return self._process.ask({"backend": backend, "structure": given}, self.answer_s)
        except _Silent as silence:
            self._end()
            self._lost_s += time.monotonic() - began
            if self._lost_s > PATIENCE_S:
                self._why_not = f"some of them take over {self.answer_s:.0f} s each"
            return f"{backend}: {silence}"

    def _start(self) -> bool:
        self._process = _Process.of(
            [str(self.python), "-m", MODULE, self.model_path], self.environment
        )
        try:
            self._process.ready(START_S)
        except _Silent:
            told = self._process.last_words()
            self._why_not = f"{self.python} -m {MODULE} did not start: {told}"
            self._end()
        return not self._why_not

    def _end(self) -> None:
        if self._process is not None:
            self._process.end()
            self._process = None


@dataclass(slots=True)
class _Process:
    """The child, its answers as they come, and a file with what else it says."""

    child: subprocess.Popen[bytes]
    said: IO[bytes]
    answers: "queue.Queue[bytes]" = field(default_factory=lambda: queue.Queue[bytes]())

    @classmethod
    def of(cls, command: list[str], environment: Mapping[str, str]) -> "_Process":
        said = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `end`
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            env={**os.environ, **environment, "VLLM_LOGGING_LEVEL": "ERROR"},
            start_new_session=True,  # a Ctrl-C is for us
        )
        process = cls(child, said)
        threading.Thread(target=process._read, daemon=True).start()
        return process

    def ready(self, limit_s: float) -> None:
        self._answer(limit_s)

    def ask(self, question: Mapping[str, object], limit_s: float) -> str:
        """Raises `_Silent`."""
        assert self.child.stdin is not None
        try:
            self.child.stdin.write(json.dumps(question).encode() + b"\n")
            self.child.stdin.flush()
        except OSError as error:
            raise _Silent("ends its compiler") from error
        return self._answer(limit_s).get("problem", "")

    def last_words(self) -> str:
        self.said.seek(0)
        lines = self.said.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def end(self) -> None:
        self.child.kill()
        self.child.wait()
        for stream in (self.child.stdin, self.said):
            assert stream is not None
            stream.close()

    def _answer(self, limit_s: float) -> dict[str, str]:
        try:
            line = self.answers.get(timeout=limit_s)
        except queue.Empty:
            raise _Silent(_TOO_LONG) from None
        if not line:
            raise _Silent("ends its compiler")
        return cast("dict[str, str]", json.loads(line))

    def _read(self) -> None:
        assert self.child.stdout is not None
        with self.child.stdout as lines:
            for line in lines:
                self.answers.put(line)
        self.answers.put(b"")
