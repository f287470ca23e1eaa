"""Launches of `running.py`, their processes, and what they may have left."""

import atexit
import getpass
import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import chdir, suppress
from dataclasses import dataclass
from functools import cache
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from unittest.mock import patch

from shunt.checkpoint.generation import Finish, Generation, TokenLogprobs
from shunt.run.audit import compare
from shunt.testing.processes import descendants
from tests.workers.pipeline import running
from workers.warm.warm_process import WarmProcess

RUNNING = Path(__file__).with_name("running.py")
ROOT = Path(__file__).parents[3]
RUN_LIMIT_S = 900.0
"""Beside other pipelines, whose ranks share two cores, a start takes minutes."""


@cache
def scratch() -> Path:
    """Where the launches of this test run work and have temporary files, and nobody else's."""
    directory = tempfile.TemporaryDirectory(prefix="shunt-t-")
    atexit.register(directory.cleanup)
    return Path(directory.name).resolve()


def environment() -> dict[str, str]:
    """Of a launch: our code, our temporary files, and what torch has compiled for anyone before."""
    compiled = Path(tempfile.gettempdir()) / f"torchinductor_{getpass.getuser()}"
    return os.environ | {
        "PYTHONPATH": str(ROOT),
        "TMPDIR": str(scratch()),
        "TORCHINDUCTOR_CACHE_DIR": os.environ.get("TORCHINDUCTOR_CACHE_DIR", str(compiled)),
    }


def start(role: str, spec: dict[str, Any], *prefix: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*prefix, sys.executable, str(RUNNING), role, json.dumps(spec)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
        cwd=scratch(),  # by which `holding.py` knows our processes: vLLM overwrites environments
    )


@dataclass(frozen=True, slots=True)
class Told:
    """What a head said of its launch."""

    generations: list[Generation]
    batch_starts: list[int]
    """At index k: batches that started as the k-th in flight; empty where vLLM's executor ran."""


@cache
def _warm() -> WarmProcess:
    """What the roles that are played are forked from, and their engines' processes."""
    process = WarmProcess(environment() | running.ENVIRONMENT)
    atexit.register(process.close)
    return process


@dataclass(frozen=True, slots=True)
class Played:
    """A role of `running.py` as a fork of the warm process: a start without imports."""

    process: BaseProcess
    output: Path

    def end(self, timeout_s: float) -> str:
        """The last line that it has said, once it has ended well."""
        try:
            self.process.join(timeout_s)
            assert self.process.exitcode == 0
        finally:
            assert self.process.pid is not None
            for pid in [*descendants(self.process.pid), self.process.pid]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.join()
        return self.output.read_text().rpartition("\n")[0].rpartition("\n")[2]


def play(role: str, spec: dict[str, Any], network: str = "") -> Played:
    """`network`: the name of the namespace that it is in, with all processes of its engine."""
    descriptor, output = tempfile.mkstemp(dir=scratch())
    os.close(descriptor)
    context = _warm().context(_unexpected)
    with patch.dict(os.environ, _warm().environ, clear=True), chdir(scratch()):
        process = context.Process(
            target=running.play, args=(role, spec, output, str(_warm().door), network)
        )
        process.start()
    return Played(process, Path(output))


def _unexpected(reason: str) -> None:
    raise AssertionError(f"not forked: {reason}")


def run(spec: dict[str, Any], network: str = "") -> Told:
    """One launch of a head to its end."""
    return told_in(play("head", spec, network).end(RUN_LIMIT_S))


def told_in(line: str) -> Told:
    """What a head has printed."""
    told = json.loads(line)
    return Told([_generation(fields) for fields in told["generations"]], told["batch_starts"])


def _generation(fields: dict[str, Any]) -> Generation:
    rows = [TokenLogprobs(tuple(r["token_ids"]), tuple(r["logprobs"]), r["rank"])
            for r in fields["logprobs"]]  # fmt: skip
    return Generation(
        token_ids=tuple(fields["token_ids"]),
        logprobs=tuple(rows),
        fingerprint=fields["fingerprint"],
        finish=Finish(**fields["finish"]),
    )


NEAR_TIE = 1e-3
"""Logprobs of one rank and of a pipeline differ by up to 1.3e-4 (float32, weights of scale 3)."""


def assert_same(expected: Told, told: Told) -> None:
    """Equal tokens, but where one rank itself did not know which of two to prefer."""
    for index, (one, other) in enumerate(zip(expected.generations, told.generations, strict=True)):
        found = compare(one, other)
        assert found.max_logprob_gap < NEAR_TIE, (index, found)
        if not found.same_tokens:
            assert found.choice_gap is not None, (index, found)
            assert found.choice_gap < NEAR_TIE, (index, found)
