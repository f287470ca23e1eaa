"""From a spot notice to a drained node, with 512 generations in flight in real vLLM.

A worker as on an EC2 node (it asks a metadata service, keeps its run in S3) generates 512 rows at
once. Then the service tells of an interruption, at any instant between two polls. Drained means:
every token saved, every lease given back, every process gone. EC2 takes the node 120 s after the
notice. What the worker says to have generated is compared with what the store holds.

    python -m benchmarks.notice_drain [repeats]
"""

import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.report import Row, write
from shunt import keys
from shunt.checkpoint.lease import Heartbeat, newest_epoch
from shunt.checkpoint.progress import replay
from shunt.dataset.rendering import renderer_for
from shunt.job.job import EngineOptions, Input, Job, Model
from shunt.job.sampling import Sampling
from shunt.run.manifest import Manifest
from shunt.run.node_status import NodeState, NodeStatus, read_statuses
from shunt.run.prepare import prepare
from shunt.store.config import StoreConfig, open_configured_store
from shunt.store.protocol import Store
from shunt.testing.ec2.imds_server import Metadata, imds_server
from shunt.testing.s3_server import S3Server, s3_server

REPOSITORY = Path(__file__).resolve().parent.parent
WORKER_PYTHON = REPOSITORY / ".venv/worker/bin/python"
MODEL = REPOSITORY / ".cache/models/SmolLM2-135M-Instruct"
ROWS = 512
ROWS_PER_SHARD = 64
TOKENS_EACH = 4
"""The notice comes when the rows have so many on average."""
NOTICE_S = 120.0
REPEATS = 5
START_LIMIT_S = 400.0
DRAINED = 75


@dataclass(frozen=True, slots=True)
class Drain:
    """One notice, in seconds after it."""

    seen_s: float
    paused_s: float
    """The engine has ended its step, and makes no token any more."""
    saved_s: float
    """The worker said that it had ended, having saved and released."""
    ended_s: float
    tokens_saved: int
    tokens_lost: int


def main() -> int:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else REPEATS
    with tempfile.TemporaryDirectory() as name, s3_server() as s3:
        drains = [_drain(Path(name), s3, repeat) for repeat in range(repeats)]
    ended = [drain.ended_s for drain in drains]
    lost = sum(drain.tokens_lost for drain in drains)
    write(
        "notice_drain",
        [
            _row("notice to seen", [drain.seen_s for drain in drains], target_s=5.0),
            _row("notice to engine paused", [drain.paused_s for drain in drains]),
            _row("notice to all saved and released", [drain.saved_s for drain in drains]),
            _row("notice to every process gone", ended),
            Row("the longest of them", max(ended), "s", None, NOTICE_S, "< 90", max(ended) < 90),
            Row("rows in flight", ROWS, "rows"),
            _tokens_row(drains),
            Row("tokens lost", lost, "tokens", None, None, "0", lost == 0),
        ],
    )
    return 0


def _row(metric: str, seconds: list[float], target_s: float | None = None) -> Row:
    middle, spread = statistics.median(seconds), (min(seconds), max(seconds))
    if target_s is None:
        return Row(metric, middle, "s", spread)
    return Row(metric, middle, "s", spread, None, f"< {target_s:g}", spread[1] < target_s)


def _tokens_row(drains: list[Drain]) -> Row:
    saved = [float(drain.tokens_saved) for drain in drains]
    return Row("tokens of them", statistics.median(saved), "tokens", (min(saved), max(saved)))


def _drain(folder: Path, s3: S3Server, repeat: int) -> Drain:
    """A fresh run, up to its first notice."""
    config = StoreConfig(
        uri=f"s3://{s3.bucket}/{repeat}",
        endpoint_url=s3.endpoint_url,
        region=s3.region,
        access_key_id_env="BENCH_ID",
        secret_access_key_env="BENCH_SECRET",
    )
    os.environ.update(
        BENCH_ID=s3.credentials.access_key_id, BENCH_SECRET=s3.credentials.secret_access_key
    )
    store = open_configured_store(config, environment=os.environ)
    manifest = _prepared(folder, config, store)
    log = folder / f"{repeat}.log"
    metadata = Metadata()
    with imds_server(metadata) as url, _worker(config, manifest.run_id, url, log) as process:
        _wait_until_all_generate(store, manifest.run_id, process, log)
        time.sleep(random.Random(repeat).uniform(0, 2))
        told_s, told_at = time.monotonic(), time.time()
        metadata.interruption_at = datetime.now(UTC) + timedelta(seconds=NOTICE_S)
        code = process.wait(timeout=NOTICE_S)
        _wait_for_the_group(process.pid, until_s=told_s + NOTICE_S)
        ended_s = time.monotonic() - told_s
    if code != DRAINED:
        raise RuntimeError(f"the worker ended with {code}: {log.read_text()[-2000:]}")
    status = _status(store, manifest.run_id)
    assert status is not None
    assert status.state is NodeState.ENDED
    saved = _saved_tokens(store, manifest)
    return Drain(
        seen_s=_logged_at(log, "leaving reason") - told_at,
        paused_s=_logged_at(log, "engine paused") - told_at,
        saved_s=status.updated_at.timestamp() - told_at,
        ended_s=ended_s,
        tokens_saved=saved,
        tokens_lost=status.output_tokens + status.unsaved_tokens - saved,
    )


def _prepared(folder: Path, store_config: StoreConfig, store: Store) -> Manifest:
    prompts = folder / "prompts.jsonl"
    lines = [{"id": f"row-{n}", "prompt": f"{n}: write about number {n}"} for n in range(ROWS)]
    prompts.write_text("".join(json.dumps(line) + "\n" for line in lines))
    job = Job(
        name="notice",
        reuse=False,
        model=Model(
            path=str(MODEL),
            dtype="bfloat16",
            max_model_len_tokens=512,
            engine=EngineOptions(enforce_eager=True, max_num_seqs=ROWS, cpu_kv_cache_gib=4),
        ),
        input=Input(path=str(prompts)),
        sampling=Sampling(max_tokens=256, ignore_eos=True),
        store=store_config,
        shard_prompts=ROWS_PER_SHARD,
    )
    renderer = renderer_for(job.model.path, revision=None, max_model_len=512, fake=False)
    return prepare(job, store, renderer, now=datetime.now(UTC))


@contextmanager
def _worker(
    config: StoreConfig, run_id: str, imds_url: str, log: Path
) -> Iterator["subprocess.Popen[bytes]"]:
    argv = [str(WORKER_PYTHON), "-m", "workers", "--store", config.model_dump_json()]
    argv += ["--run", run_id, "--node", "i-0", "--watch-imds", "--imds-url", imds_url]
    with log.open("wb") as output:
        process = subprocess.Popen(
            argv,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), "HF_HUB_OFFLINE": "1"},
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_until_all_generate(
    store: Store, run_id: str, process: "subprocess.Popen[bytes]", log: Path
) -> None:
    """All rows are in the engine, and have some tokens each."""
    give_up_s = time.monotonic() + START_LIMIT_S
    while process.poll() is None and time.monotonic() < give_up_s:
        status = _status(store, run_id)
        tokens = status.output_tokens + status.unsaved_tokens if status else 0
        if status and status.running == ROWS and tokens >= ROWS * TOKENS_EACH:
            return
        time.sleep(0.2)
    raise RuntimeError(f"the worker did not come to generate: {log.read_text()[-2000:]}")


def _status(store: Store, run_id: str) -> NodeStatus | None:
    return next(read_statuses(store, run_id), None)


def _wait_for_the_group(group: int, *, until_s: float) -> None:
    """The engine's processes are of the worker's group."""
    while time.monotonic() < until_s:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.02)
    raise RuntimeError("processes of the worker are left")


def _saved_tokens(store: Store, manifest: Manifest) -> int:
    """Of all rows, each of which has some and waits for its next owner, who need not wait."""
    tokens = 0
    for shard in manifest.shards:
        run_id, shard_id = manifest.run_id, shard.shard_id
        key = keys.lease_heartbeat(run_id, shard_id, newest_epoch(store, run_id, shard_id))
        assert Heartbeat.model_validate_json(store.get(key)).released, shard_id
        generations = replay(store, run_id, shard_id).generations
        assert len(generations) == shard.num_prompts, f"{shard_id}: rows without any token"
        assert all(g.finish is None for g in generations.values()), shard_id
        tokens += sum(len(g.token_ids) for g in generations.values())
    return tokens


def _logged_at(log: Path, text: str) -> float:
    """Seconds since 1970 of the line with the text."""
    line = next(line for line in log.read_text().splitlines() if text in line)
    return datetime.strptime(line[:23], "%Y-%m-%d %H:%M:%S,%f").timestamp()


if __name__ == "__main__":
    sys.exit(main())
