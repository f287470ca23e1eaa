"""`make ui`: Prefect's server and a worker on this machine, with the deployments applied."""

import os
import signal
import sys
import threading

from rich.console import Console

from deployments.catalogue import DEPLOYMENTS, REPOSITORY
from deployments.server import prefect_server, prefect_worker, server_environment

PORT = 4200


def main() -> int:
    """Serve until Ctrl-C."""
    console = Console()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    home = REPOSITORY / ".shunt/prefect"
    environment = server_environment(home, PORT)
    os.environ.update(environment)
    console.print("starting Prefect's server (about ten seconds)...")
    with prefect_server(environment, port=PORT, log=home / "server.log"):
        # Imports Prefect, which reads the settings made above.
        from deployments.apply import apply_deployments

        apply_deployments()
        with prefect_worker(environment, log=home / "worker.log"):
            names = ", ".join(deployment.name for deployment in DEPLOYMENTS)
            console.print(f"deployments: {names}", highlight=False)
            console.print(
                f"open [bold]http://127.0.0.1:{PORT}/deployments[/], choose ad-hoc, Run, Custom run"
            )
            console.print("Ctrl-C ends server and worker; runs that it cuts off can be resumed")
            stop.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
