"""Running the Prefect flow from our own command line: quietly, and with no set-up.

Prefect reads its settings when it is imported, so `prepare_environment` comes first.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

from flows.drive.drive import Ending, Watcher
from flows.prefect.own_server import ServerFailed, answers, own_server, wait_for
from flows.surroundings import state_directory
from shunt.errors import JobError
from shunt.job.job import Job
from shunt.store.protocol import Store

LOCAL_SERVER = "http://127.0.0.1:4200/api"
_PROBE_TIMEOUT_S = 0.3
_PATIENCE_S = 10.0
_LOGS_WITHIN_S = 2.0


def run_flow(
    job: Job,
    watcher: Watcher,
    stop: threading.Event,
    *,
    tell: Callable[[str], None],
    sample: int | None = None,
) -> Ending:
    """Run `generate` as a flow run of the server that there is, or of one that lives as long.

    The job is checked and its store reached already. `tell` is told what is waited for. Raises
    `JobError` when `PREFECT_API_URL` names a server that does not answer, or when our own does not
    start.
    """
    named = os.environ.get("PREFECT_API_URL")
    if named and not answers(named, _PATIENCE_S):
        raise JobError(
            f"PREFECT_API_URL is {named}, but no server answers there; unset it, or use "
            "--no-prefect"
        )
    prepare_environment()
    with _server(tell):
        # Only now: importing Prefect reads the environment.
        from flows.prefect.generate import Session, generate_in

        ours = signal.getsignal(signal.SIGTERM)
        session = Session(watcher, stop, checked=True, keep_handlers=lambda: _set_sigterm(ours))
        try:
            return generate_in(session, job, sample=sample)
        finally:
            _send_last_logs()


def settle_if_reachable(store: Store, run_id: str, *, now: datetime) -> None:
    """Have Prefect show what became of killed flow runs, where its server answers at once."""
    prepare_environment()
    if not answers(os.environ.get("PREFECT_API_URL", ""), _PROBE_TIMEOUT_S):
        return
    from flows.prefect.flow_view import recorded
    from flows.prefect.settling import settle

    recorded("flow runs left behind", lambda: settle(store, run_id, now=now))


@contextmanager
def _server(tell: Callable[[str], None]) -> Iterator[None]:
    """The server that `PREFECT_API_URL` names by now, or one of our own."""
    if "PREFECT_API_URL" in os.environ:
        yield
        return
    log = state_directory() / "prefect" / "server.log"
    tell("starting Prefect's own server (some ten seconds; --no-prefect does without)")
    with own_server(os.environ, log=log) as url:
        os.environ["PREFECT_API_URL"] = url
        try:
            # The import takes seconds of its own, which the server needs too.
            import flows.prefect.generate  # noqa: F401

            wait_for(url, log=log)
            yield
        except ServerFailed as error:
            raise JobError(str(error)) from error
        finally:
            del os.environ["PREFECT_API_URL"]


def _send_last_logs() -> None:
    """While the server is still there: Prefect would send them when we exit, and complain."""
    from prefect.logging.handlers import APILogWorker

    APILogWorker.drain_all(timeout=_LOGS_WITHIN_S)


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
    }
    if "PREFECT_API_URL" not in os.environ and answers(LOCAL_SERVER, _PROBE_TIMEOUT_S):
        defaults["PREFECT_API_URL"] = LOCAL_SERVER
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
