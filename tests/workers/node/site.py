"""A run with a plan in a directory, and its nodes as processes of this machine."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shunt.checkpoint.generation import Generation
from shunt.dataset.rendering import renderer_for
from shunt.job.job import Input, Job, Model, Output
from shunt.job.sampling import Sampling
from shunt.plan.kept_plan import keep_plan
from shunt.plan.launch import PipelineLaunch, newest_launch
from shunt.plan.plan import Certificate, NodeSlot, Pipeline, Plan, Prediction, Range
from shunt.run.collect import collect, reading_outcomes
from shunt.run.manifest import Manifest
from shunt.run.node_status import NodeStatus, read_statuses
from shunt.run.prepare import prepare
from shunt.store.config import StoreConfig
from shunt.store.opening import open_store
from shunt.store.protocol import Store
from tests.workers.pipeline.processes import environment, scratch

ROOT = Path(__file__).parents[3]
_NOTHING = Range(p10=0, p50=0, p90=0)


@dataclass(slots=True)
class Site:
    """Where nodes are started, killed and replaced."""

    directory: Path
    store: Store
    manifest: Manifest
    nodes: "dict[str, subprocess.Popen[bytes]]" = field(default_factory=dict)

    def start(self, node_id: str, slot: str, python: str = sys.executable) -> None:
        command = [python, "-m", "workers.node", "--watch-parent"]
        command += ["--store", json.dumps({"uri": self.manifest.job.store.uri})]
        command += ["--run", self.manifest.run_id, "--node", node_id, "--slot", slot]
        command += ["--address", "127.0.0.1"]
        with (self.directory / f"{node_id}.log").open("wb") as log:
            self.nodes[node_id] = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment(),
                cwd=scratch(),
                start_new_session=True,
            )

    def take(self, node_id: str) -> None:
        """The machine is gone: everything on it dies at once."""
        process = self.nodes.pop(node_id)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait()
        assert process.stdin is not None
        process.stdin.close()

    def end(self) -> None:
        for node_id in list(self.nodes):
            self.take(node_id)

    def plan(self, *pipelines: Pipeline, version: int = 1) -> None:
        keep_plan(self.store, self.manifest.run_id, plan_of(pipelines, version))

    def launch(self, place: str, *, after: int = 0) -> PipelineLaunch | None:
        return newest_launch(self.store, self.manifest.run_id, place, after=after)

    def statuses(self) -> dict[str, NodeStatus]:
        return {s.node_id: s for s in read_statuses(self.store, self.manifest.run_id)}

    def tokens(self) -> int:
        return sum(status.output_tokens for status in self.statuses().values())

    def codes(self, timeout_s: float = 60.0) -> dict[str, int]:
        """How the nodes end, once they have."""
        wait_until(lambda: all(p.poll() is not None for p in self.nodes.values()), timeout_s)
        return {node_id: process.returncode for node_id, process in self.nodes.items()}

    def generations(self) -> list[Generation]:
        """Of every row in order. Raises where one is missing."""
        summary = collect(self.store, self.manifest, now=datetime.now(UTC))
        with reading_outcomes(self.store, self.manifest, summary.cuts) as outcomes:
            return [o.generations[0] for shard in outcomes() for o in shard.outcomes]


def site_of(directory: Path, model: Model, sampling: Sampling, rows: Sequence[Any]) -> Site:
    (directory / "prompts.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    job = Job(
        name="planned",
        model=model,
        input=Input(path=str(directory / "prompts.jsonl")),
        output=Output(path=str(directory / "results")),
        sampling=sampling,
        store=StoreConfig(uri=str(directory / "store")),
        shard_prompts=4,
        checkpoint_interval_s=0.2,
        lease_term_s=3,
    )
    store = open_store(job.store.uri)
    fake = model.engine_kind == "fake"
    renderer = renderer_for(model.path, revision=None, max_model_len=256, fake=fake)
    manifest = prepare(job, store, renderer, now=datetime.now(UTC))
    return Site(directory, store, manifest)


def plan_of(pipelines: Sequence[Pipeline], version: int) -> Plan:
    slots = dict.fromkeys(slot for pipeline in pipelines for slot in pipeline.slots)
    nodes = [
        NodeSlot(
            slot=slot,
            instance_type="g6.12xlarge",
            zone="",
            market="spot",
            usd_per_hour=1.0,
            gpu_count=4,
        )
        for slot in slots
    ]
    return Plan(
        version=version,
        model="m",
        num_layers=pipelines[0].stages[-1].end_layer,
        engine="vllm",
        nodes=tuple(nodes),
        pipelines=tuple(pipelines),
        predicted=Prediction(
            requests_per_s=_NOTHING,
            input_tokens_per_s=0,
            output_tokens_per_s=0,
            usd_per_hour=1,
            usd_per_million_tokens=1,
            duration_s=_NOTHING,
            cost_usd=_NOTHING,
        ),
        certificate=Certificate(objective="cost", value=1, bound=1, gap=0),
    )


def wait_until(condition: Callable[[], object], timeout_s: float = 180.0) -> None:
    until_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until_s, f"not so after {timeout_s} s"
        time.sleep(0.05)
