"""The worker classes of pipelines on CPU; vLLM imports them by name."""

from workers.engine.private.worker import cpu_worker_class
from workers.pipeline.stage_worker import InputBuffer, StageWorker

_CPUWorker = cpu_worker_class()


class CPUStageWorker(InputBuffer, StageWorker, _CPUWorker):
    """A rank of a pipeline with a TP degree per stage."""


class CPUBufferWorker(InputBuffer, _CPUWorker):
    """vLLM's own worker with the input buffer: for pipelines that stock vLLM can run."""
