"""How fast a dataset becomes shards, next to a plain pyarrow read of the same file.

Rows are synthetic JSON lines with an id, a prompt and a column that is carried along: short ones
of some 110 bytes, where the cost is per row, and long ones of some 1,100 bytes, where it is per
byte. Each size runs in a process of its own, so that its peak memory is its own. The plain read
uses every core, ours parses on one.

    python -m benchmarks.prepare_rows [rows[:long] ...]
"""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pyarrow.json as pj

from benchmarks.report import Row, write
from shunt import keys
from shunt.dataset.rendering import Renderer, renderer_for
from shunt.job.job import Input, Job, Model
from shunt.results.summary import SUMMARY_NAME
from shunt.run.known_answers import mark_answered
from shunt.run.prepare import prepare
from shunt.run.status import StatusReader
from shunt.store.config import StoreConfig
from shunt.store.opening import open_store
from shunt.store.protocol import Store

SIZES = ("10000", "100000", "1000000", "1000000:long")
REPEATS = 3
_MANY_ROWS = 5_000_000
"""So many rows are prepared once only."""
TARGET_RATIO = 3.0
TARGET_MEMORY_MB = 500.0
TARGET_KNOWN = 2.0
_CHILD = "--child"
_LONG = " Give a reason, an example and a doubt." * 25


def main() -> int:
    """One child process per size."""
    rows: list[Row] = []
    for size in sys.argv[1:] or SIZES:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.prepare_rows", _CHILD, size],
            check=True,
            stdout=subprocess.PIPE,
        )
        rows += _rows(size, json.loads(done.stdout))
    write("prepare_rows", rows)
    return 0


def _rows(size: str, told: dict[str, list[float]]) -> list[Row]:
    """Ratios are of neighbours in time, as the machine is not always as quiet."""
    number, _, kind = size.partition(":")
    name = f"{int(number):,} {kind or 'short'} rows"
    [megabytes], [memory_mb], [again_s] = told["megabytes"], told["memory_mb"], told["again_s"]
    pairs = zip(told["prepare_s"], told["read_s"], strict=True)
    ratios = sorted(prepare_s / read_s for prepare_s, read_s in pairs)
    pairs = zip(told["known_s"], told["prepare_s"], strict=True)
    known = sorted(known_s / prepare_s for known_s, prepare_s in pairs)
    speeds = sorted(megabytes / prepare_s for prepare_s in told["prepare_s"])
    ratio = statistics.median(ratios)
    return [
        Row(
            f"{name}: preflight and sharding",
            statistics.median(speeds),
            "MB/s",
            spread=(speeds[0], speeds[-1]),
            reference=megabytes / statistics.median(told["read_s"]),
        ),
        Row(
            f"{name}: time over a plain pyarrow read",
            ratio,
            "x",
            spread=(ratios[0], ratios[-1]),
            target=f"<= {TARGET_RATIO:.0f}",
            met=ratio <= TARGET_RATIO,
        ),
        Row(
            f"{name}: peak memory",
            memory_mb,
            "MB",
            target=f"< {TARGET_MEMORY_MB:.0f}",
            met=memory_mb < TARGET_MEMORY_MB,
        ),
        Row(
            f"{name}: known rows, time over preparing them first",
            statistics.median(known),
            "x",
            spread=(known[0], known[-1]),
            target=f"<= {TARGET_KNOWN:.0f}",
            met=statistics.median(known) <= TARGET_KNOWN,
        ),
        Row(f"{name}: find the run again and read its status", again_s, "s"),
    ]


def measure(size: int, filler: str) -> dict[str, list[float]]:
    """Prepare a dataset of that size; then the same again, which finds it done."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "prompts.jsonl"
        write_prompts(path, size, filler)
        renderer = renderer_for("none", revision=None, max_model_len=None, fake=True)
        told: dict[str, list[float]] = {"prepare_s": [], "read_s": [], "known_s": []}
        told["megabytes"] = [path.stat().st_size / 1e6]
        for repeat in range(1 if size >= _MANY_ROWS else REPEATS):
            job = Job(
                name="benchmark",
                model=Model(path="none", engine_kind="fake"),
                input=Input(path=str(path)),
                store=StoreConfig(uri=str(Path(directory) / f"store-{repeat}")),
                shard_prompts=4096,
            )
            store = open_store(job.store.uri)
            now = datetime.now(UTC)
            told["prepare_s"].append(_seconds(partial(prepare, job, store, renderer, now=now)))
            told["known_s"].append(_known_s(job, store, renderer))
            if repeat == 0:
                told["memory_mb"] = [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]
            told["read_s"].append(_seconds(partial(pj.read_json, path)))
            if repeat == 0:
                told["again_s"] = [_seconds(partial(_find_again, job, store, renderer))]
        return told


def write_prompts(path: Path, size: int, filler: str) -> None:
    with path.open("w") as lines:
        for number in range(size):
            prompt = f"Write one sentence about the number {number} and why it matters.{filler}"
            row = {"id": f"row-{number}", "prompt": prompt, "topic": number % 97}
            lines.write(json.dumps(row) + "\n")


def _known_s(job: Job, store: Store, renderer: Renderer) -> float:
    """To prepare another run of these rows, once all of them have answers: how fast shards are cut
    decides nothing of an answer."""
    run_id = prepare(job, store, renderer, now=datetime.now(UTC)).run_id
    mark_answered(store, job.name, run_id, [])
    store.put(keys.result(run_id, SUMMARY_NAME), b"{}")  # as if it were collected
    other = job.model_copy(update={"shard_prompts": job.shard_prompts - 1})
    manifest = None

    def work() -> None:
        nonlocal manifest
        manifest = prepare(other, store, renderer, now=datetime.now(UTC))

    took_s = _seconds(work)
    store.delete(keys.result(run_id, SUMMARY_NAME))
    assert manifest is not None
    assert manifest.num_reused_rows == manifest.num_rows
    return took_s


def _find_again(job: Job, store: Store, renderer: Renderer) -> None:
    manifest = prepare(job, store, renderer, now=datetime.now(UTC))
    StatusReader(store, manifest.run_id).read()


def _seconds(work: Callable[[], object]) -> float:
    started_s = time.perf_counter()
    work()
    return time.perf_counter() - started_s


if __name__ == "__main__":
    if _CHILD in sys.argv:
        number, _, kind = sys.argv[-1].partition(":")
        told = measure(int(number), _LONG if kind == "long" else "")
        sys.stdout.write(json.dumps(told))
        sys.exit(0)
    sys.exit(main())
