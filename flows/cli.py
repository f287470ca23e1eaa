"""`shunt`: the command line. Thin: it reads argv and environment, and prints."""

import os
import sys

import click
import typer
from rich.console import Console

from flows import run_commands
from flows.audit_command import audit
from flows.exit_code import ExitCode
from flows.plan_command import calibrate, plan
from shunt.errors import InputError, JobError, RunMissing, ShuntError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Batch LLM inference on spot GPUs of mixed types; every generation is saved by token.",
)
app.command("plan")(plan)
app.command("audit")(audit)
app.command("calibrate")(calibrate)
for name, command in run_commands.COMMANDS.items():
    app.command(name)(command)

_USAGE_ERRORS = (JobError, InputError, RunMissing)


def main() -> None:
    """The `shunt` script: one clear line for what we foresaw, an exit code for everything."""
    errors = Console(stderr=True)
    try:
        app(standalone_mode=False)
    except typer.Exit as ending:
        sys.exit(ending.exit_code)
    except typer.Abort:
        sys.exit(ExitCode.INTERRUPTED)
    except ShuntError as error:
        if os.environ.get("SHUNT_DEBUG"):
            raise
        errors.print(f"[bold red]error[/]: {error}", highlight=False, soft_wrap=True)
        sys.exit(ExitCode.USAGE if isinstance(error, _USAGE_ERRORS) else ExitCode.FAILED)
    except click.ClickException as error:
        error.show()
        sys.exit(ExitCode.USAGE)
