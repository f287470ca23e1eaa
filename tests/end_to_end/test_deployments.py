"""What `shunt deploy` and Prefect's own command make of a real server, and whom it tells."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml

from deployments.server import REPOSITORY
from tests.end_to_end.prefect_ui import POOL, Server, deploy, until
from tests.shunt.report.story import RUN

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(600)]


def test_deployments_are_applied_whole(server: Server) -> None:
    by_hand = server.deployment("by-hand")
    assert by_hand["schedules"][0]["schedule"]["timezone"] == "Europe/Berlin"
    assert by_hand["schedules"][0]["active"] is False
    assert by_hand["concurrency_options"]["collision_strategy"] == "ENQUEUE"
    for kind in ("docker", "kubernetes", "ecs"):
        deployment = server.deployment(f"by-{kind}")
        assert deployment["job_variables"]["image"] == "shunt:1"
        assert deployment["work_pool_name"] == f"in-{kind}"
    names = {automation["name"] for automation in server.post("/automations/filter", {})}
    assert names == {f"shunt: {what}" for what in (
        "limit reached", "interruption storm", "stuck run", "failed run"
    )}  # fmt: skip


def test_prefects_own_command_makes_the_same_deployments(server: Server) -> None:
    """`prefect deploy` with the shipped file, in the pool of the test."""
    shipped = (REPOSITORY / "deployments/prefect.yaml").read_text()
    file = server.directory / "prefect.yaml"
    file.write_text(shipped.replace("name: shunt-local", f"name: {POOL}"))
    options = ["--no-prompt", "deploy", "--all", "--prefect-file", str(file)]
    subprocess.run(
        [sys.executable, "-m", "prefect", *options],
        env=server.environment | {"PWD": str(REPOSITORY)}, cwd=REPOSITORY, check=True, timeout=120,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip

    ours = server.deployment("by-hand")
    nightly = server.deployment("nightly")
    assert nightly["schedules"][0]["schedule"]["cron"] == "0 2 * * *"
    for name in ("entrypoint", "pull_steps", "concurrency_options", "parameter_openapi_schema"):
        assert nightly[name] == ours[name]
    made = server.post(f"/deployments/{server.deployment('ad-hoc')['id']}/create_flow_run", {
        "parameters": {
            "what": {"name": "own", "model": "none", "input": str(server.directory / "*.jsonl")},
            "more": {"job_file": str(server.directory / "job.yaml")},
        }
    })  # fmt: skip
    completed = {"id": {"any_": [made["id"]]}, "state": {"type": {"any_": ["COMPLETED"]}}}
    server.wait_for("/flow_runs/filter", {"flow_runs": completed})


_STORM = """
import sys
from dataclasses import replace
from datetime import UTC, datetime
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from flows.prefect.run_events import RunEvents
from shunt.run.status import StatusReader
from tests.shunt.report.story import RUN, story_store

def emit():
    now = datetime.now(UTC)
    status = StatusReader(story_store(), RUN).read()
    told = RunEvents(RUN, began=now)
    told.seen(replace(status, events=[e.model_copy(update={"at": now}) for e in status.events]))
    told.limit_reached("limits.max_cost_usd is spent", now)

def make_block():
    told = {"text": "{{body}}"}
    CustomWebhookNotificationBlock(name="ops", url=sys.argv[2], json_data=told).save("ops")

{"emit": emit, "block": make_block}[sys.argv[1]]()
"""


def test_a_person_is_told_of_a_storm_and_of_a_limit_by_their_own_block(server: Server) -> None:
    """What happens to a run becomes events, these fire automations, and they call the block."""

    def script(*argv: str) -> None:
        subprocess.run(
            [sys.executable, "-c", _STORM, *argv], env=server.environment, cwd=REPOSITORY,
            check=True, timeout=120,
        )  # fmt: skip

    heard: list[str] = []
    with listening(heard) as url:
        script("block", url)
        tree = yaml.safe_load((server.directory / "deployments.yaml").read_text())
        tree["automations"] = {"notify": "custom-webhook/ops", "storm_interruptions": 12}
        file = server.directory / "notified.yaml"
        file.write_text(yaml.safe_dump(tree))
        deploy(file, server.environment)
        script("emit")
        until(lambda: len(heard) == 2)
    assert all(RUN in text for text in heard)
    assert sum("shunt.worker.interrupted" in text for text in heard) == 1
    assert sum("limits.max_cost_usd is spent" in text for text in heard) == 1


@contextmanager
def listening(heard: list[str]) -> Iterator[str]:
    """A server that keeps what is posted to it; its address."""

    class Ear(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Not on the screen of the tests."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Ear) as ear:
        thread = threading.Thread(target=ear.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{ear.server_port}/"
        ear.shutdown()
        thread.join()
