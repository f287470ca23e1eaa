"""One job that runs again and again over an input that changes, with answers that say when."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from shunt import keys
from shunt.checkpoint.generation import Finish, Generation
from shunt.checkpoint.lease import LeaseObserver
from shunt.checkpoint.log import CheckpointLog
from shunt.checkpoint.progress import replay
from shunt.checkpoint.segment import Gain
from shunt.dataset.rendering import renderer_for
from shunt.dataset.row_error import RowError, RowErrorCode
from shunt.dataset.shard import read_shard
from shunt.job.job import Job
from shunt.run.collect import collect
from shunt.run.manifest import Manifest
from shunt.run.prepare import prepare, prepare_retry
from shunt.run.retry import Where
from shunt.run.verify import verify
from shunt.store.protocol import Store
from shunt.testing.memory_store import MemoryStore

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RENDERER = renderer_for("fake", revision=None, max_model_len=None, fake=True)
Row = Mapping[str, Any]


class Nights:
    """Each night is a run, numbered from 0; all go to one store."""

    def __init__(self, directory: Path, **given: Any) -> None:
        self.directory = directory
        self.given = given
        self.store: Store = MemoryStore()
        self.generated: list[int] = []
        """Rows that each night generated."""

    def job(self, **given: Any) -> Job:
        job = {
            "name": "nightly",
            "model": {"path": "fake", "engine_kind": "fake"},
            "input": {"path": str(self.directory / "in.jsonl")},
            "output": {"path": str(self.directory / "out")},
            "shard_prompts": 2,
        }
        return Job.model_validate({**job, **self.given, **given})

    def prepare(self, rows: Sequence[Row], **given: Any) -> Manifest:
        source = self.directory / "in.jsonl"
        source.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return prepare(self.job(**given), self.store, RENDERER, now=NOW)

    def retry(self, origin: Manifest, *where: str, **given: Any) -> Manifest:
        return prepare_retry(
            self.job(**given),
            self.store,
            RENDERER,
            origin=origin,
            where=Where.of(where),
            now=NOW,
        )

    def generate(self, manifest: Manifest, failing: frozenset[int] = frozenset()) -> None:
        """What workers would: an answer says which night made it, for which row."""
        made = 0
        observer = LeaseObserver(self.store, manifest.run_id, 30.0, lambda: 0.0)
        for entry in manifest.shards:
            data = self.store.get(keys.shard_prompts(manifest.run_id, entry.shard_id))
            prompts = read_shard(data, defaults=manifest.settled_job.sampling)
            gains = [
                Gain(p.index, choice, 0, self._answer(p.index, p.index in failing))
                for p in prompts
                for choice in range(p.sampling.n)
                if not p.needs_no_engine
            ]
            if gains:
                lease = observer.acquire(entry.shard_id, "me")
                assert lease is not None
                progress = replay(self.store, manifest.run_id, entry.shard_id)
                CheckpointLog(lease, progress).append(gains)
            made += len({gain.index for gain in gains})
        self.generated.append(made)

    def _answer(self, index: int, fails: bool) -> Generation:
        error = RowError(RowErrorCode.ENGINE_REFUSED, "no") if fails else None
        reason = "length" if index % 2 else "stop"
        finish = Finish(reason, None, f"{len(self.generated)}:{index}", error)
        return Generation((1, 2), num_prompt_tokens=3, finish=finish)

    def collected(self, manifest: Manifest) -> list[dict[str, Any]]:
        summary = collect(self.store, manifest, now=NOW)
        assert verify(self.store, manifest).problems == []
        lines = (Path(summary.directory) / "results.jsonl").read_text().splitlines()
        found = [json.loads(line) for line in lines]
        table = pq.read_table(Path(summary.directory) / "results.parquet")
        assert table.column("generated_text").to_pylist() == texts(found)
        assert summary.num_reused_rows == sum(bool(row.get("reused_from")) for row in found)
        return found

    def night(self, rows: Sequence[Row], **given: Any) -> list[dict[str, Any]]:
        """Prepared, generated and collected."""
        manifest = self.prepare(rows, **given)
        self.generate(manifest)
        return self.collected(manifest)


def rows(*prompts: str) -> list[Row]:
    return [{"prompt": prompt} for prompt in prompts]


def texts(found: list[dict[str, Any]]) -> list[str]:
    return [row["generated_text"] for row in found]


def codes(found: list[dict[str, Any]]) -> list[str]:
    return [row["error_code"] for row in found]
