"""Metrics of a worker for Prometheus, on request: `SHUNT_METRICS_PORT` names a port.

Workers of one machine take the first free one of `PORTS` from there on. Names begin with
`shunt_worker_`, units are base units, and there is one series of each: a target is one worker.
What vLLM itself has registered in this process is served with them.
"""

import logging
from collections.abc import Iterator
from dataclasses import fields

from prometheus_client import REGISTRY, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from workers.shards.tally import Tally
from workers.worker import Worker

PORT_VARIABLE = "SHUNT_METRICS_PORT"
PORTS = 32
_PREFIX = "shunt_worker_"
_HELP = {
    "rows_finished": "Rows that ended with an answer here.",
    "rows_failed": "Rows that ended as error rows here.",
    "output_tokens": "Tokens generated here and saved.",
    "resumed_generations": "Generations taken over from other workers.",
    "resumed_tokens": "Tokens taken over instead of being generated again.",
    "engine_deaths": "Engines that died.",
    "segments": "Segments written to the store.",
    "segment_bytes": "Bytes of these segments.",
    "prompt_tokens": "Prompt tokens of rows that ended here.",
    "cached_tokens": "Prompt tokens that the prefix cache had already.",
}

log = logging.getLogger(__name__)


class WorkerCollector(Collector):
    """Reads the worker's counters when it is asked; nothing is counted twice."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def collect(self) -> Iterator[Metric]:
        tally = self._worker.tally
        for each in fields(Tally):
            name = f"{_PREFIX}{each.name}"
            yield CounterMetricFamily(name, _HELP[each.name], getattr(tally, each.name))
        running = len(self._worker.room.running)
        yield GaugeMetricFamily(f"{_PREFIX}requests_running", "Requests in the engine.", running)
        held = len(self._worker.desk.shards)
        yield GaugeMetricFamily(f"{_PREFIX}shards_held", "Shards under this worker's lease.", held)


def serve_metrics(worker: Worker, first_port: int) -> int | None:
    """Serve on the first free port from this one on; None where none is free, which is told."""
    REGISTRY.register(WorkerCollector(worker))
    for port in range(first_port, first_port + PORTS):
        try:
            start_http_server(port)
        except OSError:
            continue
        log.info("metrics served port=%d", port)
        return port
    last = first_port + PORTS - 1
    log.warning("metrics not served: ports %d to %d are taken", first_port, last)
    return None
