"""The `shunt` script. A machine that only works has no environment of the control plane: what it
needs comes before what imports that."""

import sys


def main() -> None:
    if sys.argv[1:2] == ["worker"]:
        from flows.commands.worker import main as worker

        worker(sys.argv[2:])
    from flows.cli import main as command_line

    command_line()
