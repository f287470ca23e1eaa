"""The command line as a user has it: a directory, a job file in it, and `shunt`."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from flows.cli import app
from tests.command_process import CommandProcess

REPOSITORY = Path(__file__).resolve().parent.parent.parent
UNSET = ("SHUNT_STORE", "SHUNT_ENDPOINT_URL", "PREFECT_API_URL", "PREFECT_HOME")
"""Environment variables of whoever runs the tests that would change what the commands do."""
_TIMEOUT_S = 120.0
SHORT = {"max_tokens": 64}
"""Sampling of the jobs that run on EC2's double."""


@dataclass(frozen=True, slots=True)
class Desk:
    """A directory with a job for the fake engine, and the command line to run there."""

    directory: Path
    started: "list[subprocess.Popen[str] | CommandProcess]" = field(default_factory=list)

    def end(self) -> None:
        """End what a failed test has left running."""
        for process in self.started:
            with process:
                process.kill()

    @property
    def job(self) -> dict[str, Any]:
        return yaml.safe_load((self.directory / "job.yaml").read_text())

    def shunt(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end, in this process: Python and the imports are started already."""
        environment = {**dict.fromkeys(UNSET), "COLUMNS": "200"}
        with contextlib.chdir(self.directory):
            told = CliRunner().invoke(app, arguments, env=environment)
        if told.exception is not None and not isinstance(told.exception, SystemExit):
            raise told.exception
        return subprocess.CompletedProcess(arguments, told.exit_code, told.stdout, told.stderr)

    def process(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end, in a process of its own as a user does."""
        process = self.start(*arguments)
        stdout, stderr = process.communicate(timeout=_TIMEOUT_S)
        return subprocess.CompletedProcess(arguments, process.returncode, stdout, stderr)

    def start(self, *arguments: str, **environment_too: str) -> "subprocess.Popen[str]":
        """Start a command, as the leader of a process group like a shell would."""
        process = subprocess.Popen(
            [sys.executable, "-m", "flows", *arguments],
            cwd=self.directory,
            env=_environment() | environment_too,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def fork(self, *arguments: str, **environment_too: str) -> CommandProcess:
        """The same without Prefect, and without the seconds of its imports."""
        process = CommandProcess(
            arguments, directory=self.directory, environment=_environment() | environment_too
        )
        self.started.append(process)
        return process

    def status(self) -> dict[str, Any]:
        told = self.shunt("status", "small", "--json")
        assert told.returncode == 0, told.stderr
        return json.loads(told.stdout)

    def processes(self) -> list[str]:
        """Command lines of the living processes that name this directory."""
        found: list[str] = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended while we looked
            if str(self.directory) in command:
                found.append(command)
        return found

    def segments(self) -> list[Path]:
        return list(self.directory.glob("runs/runs/*/shards/*/segments/*"))

    def rows(self) -> list[dict[str, Any]]:
        """The result rows of the only run, in their order."""
        (results,) = self.directory.glob("results/*/results.jsonl")
        return [json.loads(line) for line in results.read_text().splitlines()]

    def texts(self) -> dict[str, str]:
        return {row["id"]: row["generated_text"] for row in self.rows()}


def _environment() -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if name not in UNSET}
    return {**ours, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "200"}


def wait_until(condition: Callable[[], object], timeout_s: float = 120.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, f"not so after {timeout_s} s"
        time.sleep(0.05)


def lay_out(directory: Path, *, tokens_per_s: float | None, bad_lines: Sequence[str] = ()) -> Desk:
    """Sixty prompts and `job.yaml`, which runs them in six shards on two workers."""
    prompts = [json.dumps({"id": f"row-{n}", "prompt": f"prompt {n}"}) for n in range(60)]
    (directory / "prompts.jsonl").write_text("\n".join([*prompts, *bad_lines]) + "\n")
    model: dict[str, object] = {"path": "none", "engine_kind": "fake"}
    if tokens_per_s is not None:
        model["fake_tokens_per_s"] = tokens_per_s
    job = {
        "name": "small",
        "model": model,
        "input": {"path": "prompts.jsonl"},
        "fleet": {"workers": 2},
        "shard_prompts": 10,
        "checkpoint_interval_s": 0.2,
        "lease_term_s": 6,  # a third of which a busy machine may keep a worker waiting
    }
    (directory / "job.yaml").write_text(yaml.safe_dump(job))
    return Desk(directory)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A job that is done as soon as its workers are up."""
    desk = lay_out(tmp_path, tokens_per_s=None)
    yield desk
    desk.end()


@pytest.fixture
def slow_desk(tmp_path: Path) -> Iterator[Desk]:
    """A job that takes many seconds, so that there is a middle to be interrupted in."""
    desk = lay_out(tmp_path, tokens_per_s=8)
    yield desk
    desk.end()


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A desk whose job has run; for tests that only look, or put back what they change."""
    desk = lay_out(tmp_path_factory.mktemp("finished"), tokens_per_s=None)
    done = desk.shunt("run", "job.yaml", "--no-prefect")
    assert done.returncode == 0, done.stderr
    yield desk
    desk.end()


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The texts of the job with `SHORT` sampling, on this machine and in peace."""
    desk = lay_out(tmp_path_factory.mktemp("undisturbed"), tokens_per_s=None)
    done = desk.shunt("run", "job.yaml", "--no-prefect", "--set", f"sampling={SHORT}")
    assert done.returncode == 0, done.stderr
    return desk.texts()
