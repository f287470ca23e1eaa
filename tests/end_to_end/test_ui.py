"""A scheduled run on a real Prefect server, and its page in a real browser."""

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from playwright.sync_api import Page, sync_playwright

from deployments.server import prefect_server, prefect_worker, server_environment
from tests.end_to_end.browser import ARGUMENTS, CHROMIUM

_APPLY = """
import sys
from pathlib import Path
from deployments.apply import apply_deployments
from deployments.catalogue import Deployment
apply_deployments([
    Deployment("every-few-seconds", "A test's own.", Path(sys.argv[1]), interval_s=10.0)
])
"""

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(300)]


class Server:
    """A running server as a test sees it."""

    def __init__(self, url: str, directory: Path) -> None:
        self.url = url
        self.directory = directory

    def post(self, path: str, body: dict[str, Any]) -> Any:
        data = json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self.url}/api{path}", data, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=10) as reply:
            return json.loads(reply.read())

    def wait_for(self, path: str, body: dict[str, Any], timeout_s: float = 180) -> list[Any]:
        """What the query finds, as soon as it finds something."""
        deadline_s = time.monotonic() + timeout_s
        while not (found := self.post(path, body)):
            assert time.monotonic() < deadline_s, f"nothing under {path} after {timeout_s} s"
            time.sleep(0.5)
        return found

    def first_completed(self) -> Any:
        """The earliest flow run that has completed; the schedule goes on, so others follow."""
        query = {"flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}, "limit": 1}
        return self.wait_for("/flow_runs/filter", query | {"sort": "START_TIME_ASC"})[0]

    def artifacts_of(self, run: Any) -> set[str]:
        """What the artifacts of a flow run tell of."""
        of_run = {"flow_runs": {"id": {"any_": [run["id"]]}}}
        keys = {artifact["key"] for artifact in self.post("/artifacts/filter", of_run)}
        return {key.split("-")[0] for key in keys}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Server and process worker, with a deployment that runs a small job every ten seconds."""
    directory = tmp_path_factory.mktemp("prefect")
    job_file = write_job(directory)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = server_environment(directory / "home", port)
    with prefect_server(environment, port=port, log=directory / "server.log"):
        subprocess.run(
            [sys.executable, "-c", _APPLY, str(job_file)], env=environment, check=True, timeout=120
        )
        with prefect_worker(environment, log=directory / "worker.log"):
            yield Server(f"http://127.0.0.1:{port}", directory)


def write_job(directory: Path) -> Path:
    """Forty rows for the fake engine, on two workers."""
    rows = [json.dumps({"id": f"row-{n}", "prompt": f"prompt {n}"}) for n in range(40)]
    (directory / "prompts.jsonl").write_text("\n".join(rows))
    job = {
        "name": "scheduled",
        "model": {"path": "none", "engine_kind": "fake", "fake_tokens_per_s": 100},
        "input": {"path": "prompts.jsonl"},
        "fleet": {"workers": 2},
        "shard_prompts": 10,
    }
    job_file = directory / "job.yaml"
    job_file.write_text(yaml.safe_dump(job))
    return job_file


def test_a_scheduled_run_fires_finishes_and_shows_itself(server: Server) -> None:
    run = server.first_completed()
    assert run["name"] == "scheduled"
    assert run["auto_scheduled"]
    (summary_file,) = (server.directory / "results").glob("*/summary.json")
    assert json.loads(summary_file.read_text())["num_ok"] == 40

    of_run = {"flow_runs": {"id": {"any_": [run["id"]]}}}
    names = {task["name"] for task in server.post("/task_runs/filter", of_run)}
    assert names == {"prepare", "worker-0", "worker-1"}
    assert server.artifacts_of(run) == {"shards", "summary"}


def test_a_later_flow_run_of_a_finished_run_shows_it_too(server: Server) -> None:
    two = {"flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}, "sort": "START_TIME_ASC"}
    deadline_s = time.monotonic() + 120
    while len(runs := server.post("/flow_runs/filter", two)) < 2:
        assert time.monotonic() < deadline_s
        time.sleep(0.5)
    assert server.artifacts_of(runs[-1]) == {"shards", "summary"}


def test_a_wrong_value_is_refused_before_there_is_a_run(server: Server) -> None:
    (deployment,) = server.post("/deployments/filter", {"limit": 1})
    job = deployment["parameters"]["job"] | {"fleet": {"workers": 0}}
    with pytest.raises(urllib.error.HTTPError) as refused:
        server.post(
            f"/deployments/{deployment['id']}/create_flow_run", {"parameters": {"job": job}}
        )
    assert "less than the minimum of 1" in refused.value.read().decode()


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium (apt-get install chromium)")
def test_the_page_of_a_run_names_its_workers(server: Server) -> None:
    run = server.first_completed()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.goto(f"{server.url}/runs/flow-run/{run['id']}")
        page.get_by_text("Task Runs", exact=True).click(timeout=60_000)
        for name in ("prepare", "worker-0", "worker-1"):
            page.get_by_role("link", name=name, exact=True).first.wait_for(timeout=60_000)
        page.get_by_text("Completed").first.wait_for(timeout=60_000)
        page.screenshot(path=server.directory / "flow-run.png")
        page.get_by_text("Artifacts", exact=True).click()
        for name in ("shards-scheduled-", "summary-scheduled-"):
            page.get_by_text(name).first.wait_for(timeout=60_000)
        page.screenshot(path=server.directory / "artifacts.png")
        assert_form(page, server)
        browser.close()


def assert_form(page: Page, server: Server) -> None:
    """The deployment's custom run asks for the job's own fields."""
    (deployment,) = server.post("/deployments/filter", {"limit": 1})
    page.goto(f"{server.url}/deployments/deployment/{deployment['id']}/run")
    page.get_by_text("Shard Prompts").first.wait_for(timeout=60_000)
    page.screenshot(path=server.directory / "form.png")
