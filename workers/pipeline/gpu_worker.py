"""The worker class of pipelines on GPU; vLLM imports it by name."""

from workers.engine.private.worker import gpu_worker_class
from workers.pipeline.stage_worker import StageWorker

_GPUWorker = gpu_worker_class()


class GPUStageWorker(StageWorker, _GPUWorker):
    """A rank of a pipeline with a TP degree per stage."""
