"""Running the Prefect flow from our own command line: quietly, and with no set-up.

Prefect reads its settings when it is imported, so `prepare_environment` comes first.
"""

import os
import signal
import threading
import urllib.error
import urllib.request

from flows.drive.drive import Ending, Watcher
from flows.surroundings import state_directory
from shunt.errors import JobError
from shunt.job.job import Job

LOCAL_SERVER = "http://127.0.0.1:4200/api"
_PROBE_TIMEOUT_S = 0.3
_PATIENCE_S = 10.0


def run_flow(
    job: Job, watcher: Watcher, stop: threading.Event, *, sample: int | None = None
) -> Ending:
    """Run `generate` as a flow run of the server that there is, or of an ephemeral one.

    Raises `JobError` when `PREFECT_API_URL` names a server that does not answer.
    """
    named = os.environ.get("PREFECT_API_URL")
    if named and not _answers(named, _PATIENCE_S):
        raise JobError(
            f"PREFECT_API_URL is {named}, but no server answers there; unset it, or use "
            "--no-prefect"
        )
    prepare_environment()
    # Only now: importing Prefect reads the environment.
    from flows.prefect.generate import Session, generate_in

    ours = signal.getsignal(signal.SIGTERM)
    session = Session(watcher, stop, lambda: _set_sigterm(ours))
    return generate_in(session, job, sample=sample)


def _set_sigterm(handler: "signal._HANDLER") -> None:
    signal.signal(signal.SIGTERM, handler)


def prepare_environment() -> None:
    """Defaults for what the user has not set: no analytics, a quiet console, our own database."""
    home = state_directory() / "prefect"
    home.mkdir(parents=True, exist_ok=True)  # Prefect makes the last directory only
    defaults = {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        # Prefect's page gets the log; the console is ours.
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        # A lost server holds up the end of a run, for the retries of some five requests; two take
        # six seconds, Prefect's five a minute.
        "PREFECT_CLIENT_MAX_RETRIES": "2",
        # A new database on a busy machine needs more than Prefect's 20 s.
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    }
    if "PREFECT_API_URL" not in os.environ and _answers(LOCAL_SERVER, _PROBE_TIMEOUT_S):
        defaults["PREFECT_API_URL"] = LOCAL_SERVER
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def _answers(api_url: str, timeout_s: float) -> bool:
    try:
        with urllib.request.urlopen(f"{api_url}/health", timeout=timeout_s):
            return True
    except urllib.error.HTTPError:
        return True  # somebody is there; whether we may talk is Prefect's to find out
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return False
