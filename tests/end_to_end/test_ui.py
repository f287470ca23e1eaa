"""A scheduled run on a real Prefect server, and its page in a real browser."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml
from playwright.sync_api import Page, sync_playwright

from tests.end_to_end.browser import ARGUMENTS, CHROMIUM
from tests.end_to_end.prefect_ui import Server, until

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(600)]


def test_a_scheduled_run_fires_finishes_and_shows_itself(server: Server) -> None:
    run = server.first_completed()
    assert run["name"].startswith("scheduled-")
    assert f"run:{run['name']}" in run["tags"]
    assert run["auto_scheduled"]
    summary_file = server.directory / "results" / run["name"] / "summary.json"
    assert json.loads(summary_file.read_text())["num_ok"] == 40

    of_run = {"flow_runs": {"id": {"any_": [run["id"]]}}}
    names = {task["name"] for task in server.post("/task_runs/filter", of_run)}
    assert names == {"prepare", "worker-0", "worker-1"}
    assert server.artifacts_of(run) == {"shards", "report", "summary"}


def test_a_later_flow_run_of_a_finished_run_shows_it_too(server: Server) -> None:
    completed = {"state": {"type": {"any_": ["COMPLETED"]}}, "name": {"like_": "scheduled-"}}
    two = {"flow_runs": completed, "sort": "START_TIME_ASC"}
    deadline_s = time.monotonic() + 300
    while len(runs := server.post("/flow_runs/filter", two)) < 2:
        assert time.monotonic() < deadline_s
        time.sleep(0.5)
    assert server.artifacts_of(runs[-1]) == {"shards", "report", "summary"}
    scheduled = server.deployment("every-minute")
    server.post(f"/deployments/{scheduled['id']}/pause_deployment", {})  # others need the machine


def test_a_wrong_value_is_refused_before_there_is_a_run(server: Server) -> None:
    deployment = server.deployment("by-hand")
    machines = {"workers": -1}
    with pytest.raises(urllib.error.HTTPError) as refused:
        server.post(
            f"/deployments/{deployment['id']}/create_flow_run",
            {"parameters": {**deployment["parameters"], "machines": machines}},
        )
    assert "less than the minimum of 0" in refused.value.read().decode()


def test_two_triggers_of_one_job_at_once_do_the_work_once(server: Server) -> None:
    """Of one deployment one flow run goes at a time; the other waits, and finds the work done."""
    deployment = server.deployment("by-hand")
    parameters = {**deployment["parameters"], "what": {**deployment["parameters"]["what"]}}
    parameters["what"]["name"] = "twice"
    pressed = [
        server.post(f"/deployments/{deployment['id']}/create_flow_run", {"parameters": parameters})
        for _ in range(2)
    ]
    ids = [run["id"] for run in pressed]
    completed = {"id": {"any_": ids}, "state": {"type": {"any_": ["COMPLETED"]}}}
    deadline_s = time.monotonic() + 300
    while len(runs := server.post("/flow_runs/filter", {"flow_runs": completed})) < 2:
        assert time.monotonic() < deadline_s
        time.sleep(0.5)
    assert {run["name"] for run in runs} == {runs[0]["name"]}
    (nodes,) = (server.directory / "runs/runs").glob("twice-*/nodes")
    assert len(list(nodes.glob("[!.]*"))) == 2, "the second one started no worker"


def test_a_refused_job_has_one_sentence_and_a_person_is_told(server: Server) -> None:
    """An input that is missing: no traceback, a state of its own, and the automation fires."""
    deployment = server.deployment("by-hand")
    what = {**deployment["parameters"]["what"], "name": "gone", "input": "/gone/*.jsonl"}
    made = server.post(
        f"/deployments/{deployment['id']}/create_flow_run",
        {"parameters": {**deployment["parameters"], "what": what}},
    )
    failed = {"id": {"any_": [made["id"]]}, "state": {"type": {"any_": ["FAILED"]}}}
    (run,) = server.wait_for("/flow_runs/filter", {"flow_runs": failed})
    assert run["state"]["name"] == "Refused"
    assert "/gone/*.jsonl" in run["state"]["message"]
    of_run = {"logs": {"flow_run_id": {"any_": [made["id"]]}}}
    assert not any("Traceback" in log["message"] for log in server.post("/logs/filter", of_run))
    triggered = {"filter": {"event": {"name": ["prefect.automation.triggered"]}}}
    deadline_s = time.monotonic() + 300
    while True:
        events = server.post("/events/filter", triggered)["events"]
        told = {event["resource"]["prefect.resource.name"] for event in events}
        if "shunt: failed run" in told:
            break
        assert time.monotonic() < deadline_s, told
        time.sleep(0.5)


def _states(nodes: Path) -> set[str]:
    found = nodes.glob("[!.]*")  # without what is being staged
    return {json.loads(node.read_text())["state"] for node in found}


@pytest.mark.parametrize("looks", ["status", "sweep"])
def test_a_killed_flow_run_is_set_right_by_whoever_looks_next(server: Server, looks: str) -> None:
    """SIGKILL of everything that knew of it: Prefect would show it as running for ever."""
    directory = server.directory
    job = yaml.safe_load((directory / "job.yaml").read_text()) | {"name": f"killed-by-{looks}"}
    job["model"] |= {"fake_tokens_per_s": 5}
    (directory / f"{looks}.yaml").write_text(yaml.safe_dump(job))
    command = [sys.executable, "-m", "flows", "run", f"{directory}/{looks}.yaml"]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(
        command, env=server.environment, cwd=directory, start_new_session=True, **quiet
    ) as run:
        try:
            shown = {"flow_runs": {"name": {"like_": f"killed-by-{looks}-"}}}
            (flow_run,) = server.wait_for("/flow_runs/filter", shown)
            of_it = {"flow_runs": {"id": {"any_": [flow_run["id"]]}}}
            key = {"artifacts": {"key": {"like_": "shards-"}}}
            server.wait_for("/artifacts/filter", of_it | key)
            nodes = directory / "runs/runs" / flow_run["name"] / "nodes"
            until(lambda: "running" in _states(nodes))
        finally:
            os.killpg(run.pid, signal.SIGKILL)
    until(lambda: _states(nodes) == {"ended"})  # workers see that their parent is gone, and save
    if looks == "status":
        look = ["status", flow_run["name"], "--store", str(directory / "runs")]
    else:
        look = ["deploy", "--sweep"]
    subprocess.run(
        [sys.executable, "-m", "flows", *look], env=server.environment, cwd=directory, check=True,
        timeout=120, **quiet,
    )  # fmt: skip

    (ended,) = server.post("/flow_runs/filter", of_it)
    assert ended["state"]["type"] == "CRASHED"
    assert f"Go on with: shunt resume {flow_run['name']}" in ended["state"]["message"]
    tasks = server.post("/task_runs/filter", of_it)
    assert {task["state_type"] for task in tasks} <= {"COMPLETED", "CRASHED"}
    (table,) = server.post("/artifacts/filter", of_it | key)
    assert {row["state"] for row in json.loads(table["data"])} <= {"waiting", "done"}


def test_what_happens_to_a_run_is_an_event_of_it(server: Server) -> None:
    run = server.first_completed()
    of_run = {"filter": {"resource": {"id": [f"shunt.run.{run['name']}"]}}}
    deadline_s = time.monotonic() + 300
    while True:
        events = server.post("/events/filter", of_run)["events"]
        if {"shunt.worker.started", "shunt.run.ended"} <= {event["event"] for event in events}:
            break
        assert time.monotonic() < deadline_s, events
        time.sleep(0.5)
    related = {each["prefect.resource.id"] for event in events for each in event["related"]}
    assert f"prefect.flow-run.{run['id']}" in related


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
        for name in ("shards-scheduled-", "report-scheduled-", "summary-scheduled-"):
            page.get_by_text(name).first.wait_for(timeout=60_000)
        page.screenshot(path=server.directory / "artifacts.png")
        assert_form(page, server)
        browser.close()


def assert_form(page: Page, server: Server) -> None:
    """The deployment's custom run asks for what a person fills first, and nothing is of no type."""
    deployment = server.deployment("by-hand")
    page.goto(f"{server.url}/deployments/deployment/{deployment['id']}/run")
    for field in ("Template", "Max Tokens", "Workers", "Max Cost Usd", "Job Text"):
        page.get_by_text(field).first.wait_for(timeout=60_000)
    page.screenshot(path=server.directory / "form.png", full_page=True)
    assert page.get_by_text("Property is type None").count() == 0
