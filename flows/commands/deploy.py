"""`shunt deploy`: work pools, deployments and automations on a Prefect server."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from flows.commands.run import print_lines
from flows.prefect.deployment_file import load_deployments
from flows.prefect.session import prepare_environment
from flows.surroundings import REPOSITORY
from shunt.errors import JobError

_SHIPPED = REPOSITORY / "deployments/deployments.yaml"


def deploy(
    file: Annotated[
        Path, typer.Argument(metavar="[FILE]", help="What to apply; unset: the shipped one.")
    ] = _SHIPPED,
    sweep: Annotated[
        bool,
        typer.Option("--sweep", help="Apply nothing; set right what killed flow runs left behind."),
    ] = False,
) -> None:
    """Apply work pools, deployments and automations to a Prefect server. Run it again at any time.

    The server is that of PREFECT_API_URL, else the one at 127.0.0.1:4200.
    """
    loaded = None if sweep else load_deployments(file)
    prepare_environment()
    if "PREFECT_API_URL" not in os.environ:
        raise JobError(
            "no Prefect server answers at 127.0.0.1:4200; start one with `make ui`, or set "
            "PREFECT_API_URL"
        )
    # Prefect takes two seconds to import, and reads the environment then.
    if loaded is None:
        from flows.prefect.sweep import sweep_up

        print_lines(sweep_up(os.environ, now=datetime.now(UTC)))
        return
    from flows.prefect.deploying import apply_deployments

    print_lines(apply_deployments(loaded, file.parent))
