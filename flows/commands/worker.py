"""`shunt worker`: the worker environment's own command. Imports nothing that is not there, too."""

import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from flows.surroundings import CODE, WORKER_PYTHON, no_worker_environment, worker_python_in
from shunt.errors import JobError


def worker(
    run_id: Annotated[
        str, typer.Argument(metavar="RUN", help="Run id; its unique beginning is enough.")
    ],
    store: Annotated[
        str, typer.Option("--store", help="Store of the run.", envvar="SHUNT_STORE")
    ] = "runs",
    endpoint_url: Annotated[
        str | None, typer.Option(help="S3 endpoint that is not AWS.", envvar="SHUNT_ENDPOINT_URL")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Directory of the run's model, if it lies elsewhere here.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Of this worker; unset: made of the machine's name.")
    ] = None,
    drain_limit_s: Annotated[
        float | None,
        typer.Option(help="Leave at the latest so long after SIGTERM (default 90 s)."),
    ] = None,
    recheck: Annotated[
        bool, typer.Option("--recheck", help="Look into shards that are marked done, too.")
    ] = False,
) -> None:
    """Join a run as one more worker, from any machine that reaches its store.

    It takes shards until nothing is left, and saves and leaves at SIGTERM. A machine without this
    environment says the same as `python -m workers.join RUN`.

    Exit codes: 0 nothing is left to do; 75 told to leave; 78 this machine cannot; 2 wrong command.
    """
    argv = [run_id, "--store", store]
    argv += ["--endpoint-url", endpoint_url] if endpoint_url else []
    argv += ["--model", model] if model else []
    argv += ["--name", name] if name else []
    argv += ["--drain-limit-s", str(drain_limit_s)] if drain_limit_s is not None else []
    argv += ["--recheck"] if recheck else []
    become_worker(argv)


def become_worker(options: Sequence[str]) -> NoReturn:
    """Raises `JobError` where there is no worker environment."""
    python = _python()
    if not python.exists():
        raise no_worker_environment(python)
    argv = [str(python), "-m", "workers.join", *options]
    # In our place: signals and the exit code of the worker are then those of the command.
    os.execve(python, argv, {**os.environ, **CODE, WORKER_PYTHON: str(python)})


def _python() -> Path:
    """This interpreter, where it is that of a worker environment, and no other one is named."""
    if not os.environ.get(WORKER_PYTHON) and importlib.util.find_spec("vllm") is not None:
        return Path(sys.executable)
    return worker_python_in(os.environ)


def main(argv: Sequence[str]) -> NoReturn:
    """`shunt worker` where there is no other command."""
    try:
        become_worker(argv)
    except JobError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
