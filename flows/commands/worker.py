"""`shunt worker`: the worker environment's own command, from the control environment."""

import os
from typing import Annotated

import typer

from flows.commands.run import Endpoint, RunId, StoreUri
from flows.surroundings import CODE, WORKER_PYTHON, no_worker_environment, worker_python_in


def worker(
    run_id: RunId,
    store: StoreUri = "runs",
    endpoint_url: Endpoint = None,
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
    python = worker_python_in(os.environ)
    if not python.exists():
        raise no_worker_environment(python)
    argv = [str(python), "-m", "workers.join", run_id, "--store", store]
    argv += ["--endpoint-url", endpoint_url] if endpoint_url else []
    argv += ["--name", name] if name else []
    argv += ["--drain-limit-s", str(drain_limit_s)] if drain_limit_s is not None else []
    argv += ["--recheck"] if recheck else []
    # In our place: signals and the exit code of the worker are then those of the command.
    os.execve(python, argv, {**os.environ, **CODE, WORKER_PYTHON: str(python)})
