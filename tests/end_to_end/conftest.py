"""One Prefect server and one process worker for all tests of this folder."""

import socket
from collections.abc import Iterator

import pytest

from deployments.server import prefect_server, prefect_worker, server_environment
from tests.end_to_end.prefect_ui import POOL, Server, deploy, write_deployments, write_job


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Server and process worker, with a deployment that runs a small job every 45 s."""
    directory = tmp_path_factory.mktemp("prefect")
    job_file = write_job(directory)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = server_environment(directory / "home", port)
    with prefect_server(environment, port=port, log=directory / "server.log"):
        for _ in range(2):  # the second time changes nothing
            deploy(write_deployments(directory, job_file), environment)
        with prefect_worker(environment, pool=POOL, log=directory / "worker.log"):
            yield Server(f"http://127.0.0.1:{port}", directory, environment)
