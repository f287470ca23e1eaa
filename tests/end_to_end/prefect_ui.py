"""A Prefect server with the deployments of a small job, as tests see it."""

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from deployments.server import REPOSITORY

POOL = "test-pool"
PATIENCE_S = 240.0
"""A server that a busy machine holds up is asked again for so long."""


class Server:
    """A running server as a test sees it."""

    def __init__(self, url: str, directory: Path, environment: dict[str, str]) -> None:
        self.url = url
        self.directory = directory
        self.environment = environment

    def post(self, path: str, body: dict[str, Any]) -> Any:
        data = json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self.url}/api{path}", data, {"Content-Type": "application/json"}
        )
        asks = path.endswith("/filter")  # a question may be asked twice, nothing be made twice
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            try:
                with urllib.request.urlopen(request, timeout=60 if asks else PATIENCE_S) as reply:
                    return json.loads(reply.read() or "null")
            except urllib.error.HTTPError as refused:
                # SQLite is locked on a busy machine; Prefect's own client asks again, too.
                if refused.code != 503 or time.monotonic() > deadline_s:
                    raise
            except TimeoutError:
                if not asks or time.monotonic() > deadline_s:
                    raise
            time.sleep(0.5)

    def wait_for(self, path: str, body: dict[str, Any], timeout_s: float = 300) -> list[Any]:
        """What the query finds, as soon as it finds something."""
        deadline_s = time.monotonic() + timeout_s
        while not (found := self.post(path, body)):
            assert time.monotonic() < deadline_s, f"nothing under {path} after {timeout_s} s"
            time.sleep(0.5)
        return found

    def deployment(self, name: str) -> Any:
        query = {"deployments": {"name": {"any_": [name]}}, "limit": 1}
        return self.post("/deployments/filter", query)[0]

    def first_completed(self) -> Any:
        """The earliest flow run that has completed; the schedule goes on, so others follow."""
        name = {"name": {"like_": "scheduled-"}}
        query = {"flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}, **name}, "limit": 1}
        return self.wait_for("/flow_runs/filter", query | {"sort": "START_TIME_ASC"})[0]

    def artifacts_of(self, run: Any) -> set[str]:
        """What the artifacts of a flow run tell of."""
        of_run = {"flow_runs": {"id": {"any_": [run["id"]]}}}
        keys = {artifact["key"] for artifact in self.post("/artifacts/filter", of_run)}
        return {key.split("-")[0] for key in keys}


def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.5)


def deploy(file: Path, environment: Mapping[str, str]) -> None:
    subprocess.run(
        [sys.executable, "-m", "flows", "deploy", str(file)],
        env=dict(environment), cwd=REPOSITORY, check=True, timeout=120,
    )  # fmt: skip


def write_deployments(directory: Path, job_file: Path) -> Path:
    """The job every 45 s, and the same job from a form that is started by hand."""
    scheduled = {"name": "every-minute", "pool": POOL, "job": job_file.name}
    file = directory / "deployments.yaml"
    tree = {
        "pools": [
            {"name": POOL, "type": "process"},
            *(
                {"name": f"in-{kind}", "type": kind, "image": "shunt:1", "directory": "/opt/shunt"}
                for kind in ("docker", "kubernetes", "ecs")
            ),
        ],
        "deployments": [
            {**scheduled, "interval_s": 45.0},
            {**scheduled, "name": "by-hand", "cron": "0 2 * * *", "timezone": "Europe/Berlin",
             "active": False},
            *({**scheduled, "name": f"by-{kind}", "pool": f"in-{kind}"}
              for kind in ("docker", "kubernetes", "ecs")),
        ],
    }  # fmt: skip
    file.write_text(yaml.safe_dump(tree))
    return file


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
