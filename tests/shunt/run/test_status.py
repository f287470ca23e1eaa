"""What a person sees move, before anything is saved and after a worker has left."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from shunt.dataset.rendering import renderer_for
from shunt.job.job import Job
from shunt.run.node_status import NodeState, NodeStatus, write_status
from shunt.run.prepare import prepare
from shunt.run.status import RunStatus, StatusReader
from shunt.testing.memory_store import MemoryStore

RENDERER = renderer_for("fake", revision=None, max_model_len=None, fake=True)


class Run:
    """Four rows in one shard, and what nodes say."""

    def __init__(self, directory: Path) -> None:
        source = directory / "in.jsonl"
        source.write_text("".join(json.dumps({"prompt": f"say {n}"}) + "\n" for n in range(4)))
        model = {"path": "fake", "engine_kind": "fake"}
        tree = {"name": "seen", "model": model, "input": {"path": str(source)}}
        tree["output"] = {"path": str(directory / "out")}
        self.store = MemoryStore()
        manifest = prepare(Job.model_validate(tree), self.store, RENDERER, now=datetime.now(UTC))
        self.run_id, [shard] = manifest.run_id, manifest.shards
        self.shard_id = shard.shard_id

    def says(self, name: str, state: NodeState, **counts: Any) -> RunStatus:
        now = datetime.now(UTC)
        status = NodeStatus(
            node_id=name, pid=1, state=state, started_at=now, updated_at=now, **counts
        )
        write_status(self.store, self.run_id, status)
        return StatusReader(self.store, self.run_id).read()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_rows_and_tokens_move_before_they_are_saved(run: Run) -> None:
    counts = {"shards": {run.shard_id: 0}, "unsaved_rows": 2, "unsaved_tokens": 90}
    status = run.says("a", NodeState.RUNNING, **counts)
    assert (status.rows_ended, status.tokens_made) == (2, 90)
    assert (status.rows_terminal, status.output_tokens) == (0, 0), "decisions go by what is saved"


def test_what_a_worker_saved_stays_after_it_has_left(run: Run) -> None:
    status = run.says("a", NodeState.ENDED, shards={run.shard_id: 3}, output_tokens=90)
    assert (status.rows_ended, status.tokens_made) == (3, 90)
    assert status.shards[0].holder == "", "nobody holds it"
    status = run.says("b", NodeState.RUNNING, shards={run.shard_id: 3}, unsaved_rows=1)
    assert status.rows_ended == 4
    assert status.shards[0].holder == "b"
