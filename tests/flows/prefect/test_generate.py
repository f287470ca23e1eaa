"""The Prefect flow, as `shunt run` starts it: on an ephemeral server, with no set-up."""

import json
import os
import signal
import socket
import sqlite3
from pathlib import Path

import pytest

from deployments.server import prefect_server, server_environment
from tests.flows.conftest import Desk, wait_until

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(280)]


def test_a_run_is_a_flow_run_with_a_task_run_per_worker(desk: Desk) -> None:
    """In a directory that has never seen Prefect."""
    done = desk.process("run", "job.yaml", "--json")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["summary"]["num_ok"] == 60
    ((name, state_type, tags),) = query(desk, "select name, state_type, tags from flow_run")
    assert (name, state_type) == (json.loads(done.stdout)["run_id"], "COMPLETED")
    assert set(json.loads(tags)) == {f"run:{name}", "job:small", "model:none", "fleet:local"}
    tasks = query(desk, "select name, state_type from task_run order by name")
    assert tasks == [(name, "COMPLETED") for name in ("prepare", "worker-0", "worker-1")]
    kinds = {key.split("-")[0] for (key,) in query(desk, "select key from artifact")}
    assert kinds == {"shards", "report", "summary"}
    logged = [message for (message,) in query(desk, "select message from log")]
    assert any("worker started" in message for message in logged)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_flow_as_it_ends_a_plain_run(
    slow_desk: Desk, number: signal.Signals
) -> None:
    """A terminal sends Ctrl-C to the whole group. Prefect's server must outlive it: the flow run's
    last state would wait for it otherwise, and be lost."""
    run = slow_desk.start("run", "job.yaml")
    wait_until(lambda: len(slow_desk.segments()) > 4, timeout_s=120)
    if number == signal.SIGINT:
        os.killpg(run.pid, number)
    else:
        run.send_signal(number)
    stdout, stderr = run.communicate(timeout=60)

    assert run.returncode == 75, stderr
    assert "Go on with: shunt resume" in stdout
    assert "Traceback" not in stderr
    assert slow_desk.processes() == []
    ended = query(slow_desk, "select state_type, state_name from flow_run")
    assert ended == [("CANCELLED", "Interrupted")]
    assert [e["kind"] for e in slow_desk.status()["events"]][-1] == "stopped"


def test_a_wrong_row_in_strict_mode_is_told_as_without_prefect(desk: Desk) -> None:
    with (desk.directory / "prompts.jsonl").open("a") as prompts:
        prompts.write("{broken\n")
    refused = desk.process("run", "job.yaml", "--strict")

    assert refused.returncode == 2
    assert "prompts.jsonl:61" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_bad_rows_are_a_table_with_file_and_line(desk: Desk) -> None:
    with (desk.directory / "prompts.jsonl").open("a") as prompts:
        prompts.write('{broken\n{"id": "e", "prompt": ""}\n')
    done = desk.process("run", "job.yaml", "--set", "errors.max_error_rows=1")

    assert done.returncode == 3, done.stderr
    states = query(desk, "select state_type, state_name from flow_run")
    assert states == [("FAILED", "TooManyErrorRows")]
    ((data,),) = query(desk, "select data from artifact where key like 'bad-rows-%'")
    rows = json.loads(json.loads(data))
    assert [row["code"] for row in rows] == ["malformed_row", "empty_prompt"]
    assert "prompts.jsonl:61" in rows[0]["reason"]


def test_a_killed_flow_run_is_set_right_by_the_next_one(slow_desk: Desk) -> None:
    """SIGKILL leaves no word behind: its task runs and its table would stay as they were."""
    run = slow_desk.start("run", "job.yaml")
    wait_until(lambda: len(slow_desk.segments()) > 4, timeout_s=120)
    wait_until(lambda: query(slow_desk, "select 1 from artifact where key like 'shards-%'"))
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate(timeout=60)
    wait_until(lambda: not slow_desk.processes(), timeout_s=120)  # its workers save and leave
    left = query(slow_desk, "select state_type from flow_run")
    assert left == [("RUNNING",)]
    again = slow_desk.process("run", "job.yaml", "--set", "model.fake_tokens_per_s=400")

    assert again.returncode == 0, again.stderr
    told = "select flow_run.state_type, flow_run_state.message from flow_run join flow_run_state"
    rows = query(slow_desk, f"{told} on flow_run.state_id = flow_run_state.id")
    ended: dict[str, str] = {row[0]: row[1] for row in rows}
    assert set(ended) == {"CRASHED", "COMPLETED"}
    assert "Go on with: shunt resume small-" in ended["CRASHED"]
    lanes = query(slow_desk, "select state_type from task_run where name like 'worker-%'")
    assert {state for (state,) in lanes} <= {"CRASHED", "COMPLETED"}
    tables = query(slow_desk, "select data from artifact where key like 'shards-%'")
    assert len(tables) == 2
    assert not any("held" in data for (data,) in tables)


def test_a_server_that_is_lost_on_the_way_changes_nothing(slow_desk: Desk) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = server_environment(slow_desk.directory / "server", port)
    url = environment["PREFECT_API_URL"]
    quick = ("--set", "model.fake_tokens_per_s=15")
    with prefect_server(environment, port=port, log=slow_desk.directory / "server.log"):
        run = slow_desk.start("run", "job.yaml", *quick, PREFECT_API_URL=url)
        wait_until(lambda: len(slow_desk.segments()) > 4, timeout_s=120)
    _, stderr = run.communicate(timeout=120)

    assert run.returncode == 0, stderr
    assert len(slow_desk.rows()) == 60


def test_a_server_that_does_not_answer_is_named(desk: Desk) -> None:
    run = desk.start("run", "job.yaml", PREFECT_API_URL="http://127.0.0.1:9/api")
    _, stderr = run.communicate(timeout=60)

    assert run.returncode == 2
    assert "PREFECT_API_URL is http://127.0.0.1:9/api, but no server answers" in stderr


def query(desk: Desk, sql: str) -> list[tuple[str, ...]]:
    database = Path(desk.directory, ".shunt/prefect/prefect.db")
    with sqlite3.connect(database) as connection:
        rows = connection.execute(sql).fetchall()
    connection.close()
    return rows
