"""Launches of `running.py`, their processes, and what they may have left."""

import atexit
import getpass
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from shunt.checkpoint.generation import Finish, Generation, TokenLogprobs
from shunt.run.audit import compare

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


def run(spec: dict[str, Any], *prefix: str) -> Told:
    """One launch of a head to its end."""
    process = start("head", spec, *prefix)
    output, _ = process.communicate(timeout=RUN_LIMIT_S)
    assert process.returncode == 0
    return told_in(output.splitlines()[-1])


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
