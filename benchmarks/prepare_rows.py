"""How fast a dataset becomes shards, next to a plain pyarrow read of the same file.

Rows are synthetic JSON lines with an id, a prompt and a column that is carried along. Each size
runs in a process of its own, so that its peak memory is its own.

    python -m benchmarks.prepare_rows [rows ...]
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.json as pj

from benchmarks.report import Row, write
from shunt.job import Input, Job, Model
from shunt.prepare import prepare
from shunt.rendering import renderer_for
from shunt.run_status import StatusReader
from shunt.store.config import StoreConfig
from shunt.store.opening import open_store

SIZES = (10_000, 100_000, 1_000_000)
TARGET_RATIO = 3.0
TARGET_MEMORY_MB = 500.0
_CHILD = "--child"


def main() -> int:
    """One child process per size."""
    rows: list[Row] = []
    for size in [int(argument) for argument in sys.argv[1:]] or SIZES:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.prepare_rows", _CHILD, str(size)],
            check=True,
            stdout=subprocess.PIPE,
        )
        told: dict[str, float] = json.loads(done.stdout)
        ratio = told["prepare_s"] / told["read_s"]
        rows += [
            Row(
                f"{size:,} rows: preflight and sharding",
                told["megabytes"] / told["prepare_s"],
                "MB/s",
                reference=told["megabytes"] / told["read_s"],
            ),
            Row(
                f"{size:,} rows: time over a plain pyarrow read",
                ratio,
                "x",
                target=f"<= {TARGET_RATIO:.0f}",
                met=ratio <= TARGET_RATIO,
            ),
            Row(
                f"{size:,} rows: peak memory",
                told["memory_mb"],
                "MB",
                target=f"< {TARGET_MEMORY_MB:.0f}",
                met=told["memory_mb"] < TARGET_MEMORY_MB,
            ),
            Row(f"{size:,} rows: find the run again and read its status", told["again_s"], "s"),
        ]
    write("prepare_rows", rows)
    return 0


def measure(size: int) -> dict[str, float]:
    """Prepare a dataset of that size; then the same again, which finds it done."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "prompts.jsonl"
        with path.open("w") as lines:
            for number in range(size):
                prompt = f"Write one sentence about the number {number} and why it matters."
                row = {"id": f"row-{number}", "prompt": prompt, "topic": number % 97}
                lines.write(json.dumps(row) + "\n")
        job = Job(
            name="benchmark",
            model=Model(path="none", engine_kind="fake"),
            input=Input(path=str(path)),
            store=StoreConfig(uri=str(Path(directory) / "store")),
            shard_prompts=4096,
        )
        store = open_store(job.store.uri)
        renderer = renderer_for("none", revision=None, max_model_len=None, fake=True)
        prepare_s = _seconds(lambda: prepare(job, store, renderer, now=datetime.now(UTC)))
        memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

        def again() -> object:
            manifest = prepare(job, store, renderer, now=datetime.now(UTC))
            return StatusReader(store, manifest.run_id).read()

        again_s = _seconds(again)
        return {
            "megabytes": path.stat().st_size / 1e6,
            "prepare_s": prepare_s,
            "read_s": _seconds(lambda: pj.read_json(path)),
            "memory_mb": memory_mb,
            "again_s": again_s,
        }


def _seconds(work: Callable[[], object]) -> float:
    started_s = time.perf_counter()
    work()
    return time.perf_counter() - started_s


if __name__ == "__main__":
    if _CHILD in sys.argv:
        sys.stdout.write(json.dumps(measure(int(sys.argv[-1]))))
        sys.exit(0)
    sys.exit(main())
