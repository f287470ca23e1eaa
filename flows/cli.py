"""`shunt`: the command line. Thin: it reads argv and environment, and prints."""

import json
import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from flows.commands import account as account_commands
from flows.commands import fleet as fleet_commands
from flows.commands import results as results_commands
from flows.commands import run as run_commands
from flows.commands.audit import audit
from flows.commands.deploy import deploy
from flows.commands.model import model
from flows.commands.plan import calibrate, plan
from flows.commands.receipts import receipts
from flows.commands.report import report
from flows.commands.retry import retry
from flows.commands.watch import watch
from flows.commands.worker import worker
from flows.exit_code import ExitCode
from flows.surroundings import keep_quiet
from placement.errors import BadInput
from shunt.errors import InputError, JobError, RunMissing, ShuntError

_USAGE_ERRORS = (JobError, InputError, RunMissing, BadInput)


class Commands(TyperGroup):
    """Ends what we foresaw with one clear line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        as_json = "--json" in ctx.args  # of the subcommand, which takes them away
        try:
            return super().invoke(ctx)
        except ShuntError as error:
            if ctx.params["debug"]:
                raise
            usage = isinstance(error, _USAGE_ERRORS)
            code = ExitCode.USAGE if usage else ExitCode.FAILED
            if as_json:
                told = {"error": str(error), "kind": type(error).__name__, "exit_code": int(code)}
                typer.echo(json.dumps(told, indent=2, ensure_ascii=False))
            message = f"[bold red]error[/]: {_escaped(error)}"
            Console(stderr=True).print(message, highlight=False, soft_wrap=True)
            raise typer.Exit(code) from error


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


@app.callback()
def shunt(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show where an error arose.", envvar="SHUNT_DEBUG")
    ] = False,
) -> None:
    """Batch LLM inference on spot GPUs of mixed types; every generation is saved by token."""
    del debug  # read by Commands


_OTHERS = {
    "watch": watch,
    "report": report,
    "receipts": receipts,
    "retry": retry,
    "worker": worker,
    "audit": audit,
    "plan": plan,
    "calibrate": calibrate,
    "deploy": deploy,
}
_COMMANDS = {
    **run_commands.COMMANDS,
    **results_commands.COMMANDS,
    **_OTHERS,
    **fleet_commands.COMMANDS,
}
for name, command in _COMMANDS.items():
    app.command(name)(command)
app.add_typer(account_commands.aws, name="aws")
app.add_typer(model, name="model")


def main() -> None:
    """The `shunt` script."""
    keep_quiet()
    sys.exit(app())


def _escaped(error: ShuntError) -> str:
    return str(error).replace("[", "\\[")
