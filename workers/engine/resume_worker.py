"""In the model's worker process: restore what model runner V1 keeps per request, and mend it.

Model runner V2 needs nothing: it is handed prompt plus output of every request, and its sampler is
a function of these, the seed and the position.
"""

from typing import Any

from workers.engine.private.processes import sleep_while_waiting
from workers.engine.private.worker import describe_worker, install_v1_hook
from workers.engine.sampler_repair import mend_sampler

# Makes vLLM know the load format `shunt`: this module is the first of ours that a rank imports.
from workers.weights import vllm_loader as vllm_loader

# Before this rank's message queues are made.
sleep_while_waiting()


class ResumeWorker:
    """`worker_extension_cls`: its methods are called by the front end over collective RPC."""

    def shunt_prepare(self: Any) -> dict[str, str]:
        """Install what this worker's model runner needs; say what it runs on."""
        description = describe_worker(self)
        if description["runner"] == "v1":
            install_v1_hook()
            mend_sampler()
        return description
