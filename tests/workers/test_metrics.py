"""A worker's endpoint for Prometheus."""

import asyncio
import socket
import urllib.request

from prometheus_client import REGISTRY

from shunt.run.node_status import NodeStatus
from shunt.testing.memory_store import MemoryStore
from tests.workers.bench import Bench
from tests.workers.test_worker import long_prompts
from workers import metrics
from workers.shards.tally import Tally


def read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as reply:
        return reply.read().decode()


async def test_the_endpoint_serves_the_workers_counts_on_the_first_free_port() -> None:
    bench, store = Bench(long_prompts(6)), MemoryStore()
    worker = bench.worker(store)
    before = set(REGISTRY._collector_to_names)
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = metrics.serve_metrics(worker, taken.getsockname()[1])
        assert port is not None
        assert port != taken.getsockname()[1]
        worker.tally.output_tokens = 1200
        text = await asyncio.to_thread(read, f"http://127.0.0.1:{port}/metrics")
    for collector in set(REGISTRY._collector_to_names) - before:
        REGISTRY.unregister(collector)

    assert "shunt_worker_output_tokens_total 1200.0" in text
    assert "shunt_worker_requests_running 0.0" in text
    assert all(f"shunt_worker_{name}" in text for name in Tally.__dataclass_fields__)


def test_what_a_worker_counts_is_in_its_status() -> None:
    assert Tally.__dataclass_fields__.keys() <= NodeStatus.model_fields.keys()
