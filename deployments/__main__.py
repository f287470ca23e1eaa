"""`make ui`: Prefect's server and a worker on this machine, with the deployments applied."""

import signal
import subprocess
import sys
import threading

from rich.console import Console

from deployments.server import REPOSITORY, prefect_server, prefect_worker, server_environment

PORT = 4200
POOL = "shunt-local"
_SWEEP_S = 60.0


def main() -> int:
    """Serve until Ctrl-C."""
    console = Console()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    home = REPOSITORY / ".shunt/prefect"
    environment = server_environment(home, PORT)
    console.print("starting Prefect's server (about ten seconds)...")
    with prefect_server(environment, port=PORT, log=home / "server.log"):
        # The command line is another room: it is asked as a user would.
        shunt = [sys.executable, "-m", "flows", "deploy"]
        if (applied := subprocess.run(shunt, env=environment, cwd=REPOSITORY)).returncode:
            return applied.returncode
        with prefect_worker(environment, pool=POOL, log=home / "worker.log"):
            console.print(
                f"open [bold]http://127.0.0.1:{PORT}/deployments[/], choose ad-hoc, Run, Custom run"
            )
            console.print("Ctrl-C ends server and worker; runs that it cuts off can be resumed")
            while not stop.wait(_SWEEP_S):
                subprocess.run([*shunt, "--sweep"], env=environment, cwd=REPOSITORY)
    return 0


if __name__ == "__main__":
    sys.exit(main())
