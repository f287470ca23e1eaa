"""How vLLM starts its processes: an engine core by the front end, ranks by the core's executor."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import BaseContext
from unittest.mock import patch

from vllm.distributed.device_communicators import shm_broadcast
from vllm.platforms import current_platform
from vllm.v1.engine import utils
from vllm.v1.executor import multiproc_executor

_CHOICE = "get_mp_context"
"""What both modules ask for the context of the processes that they start."""
_PAUSE = "sched_yield"
"""What a reader or writer of a message queue calls between two looks at it."""
_PAUSE_S = 0.0005
"""A step of a model on a CPU takes ten times as long, or more."""


@contextmanager
def cores_started_by(context: BaseContext) -> Iterator[None]:
    """Engine cores that this process starts inside the block are processes of `context`.

    vLLM accepts the names of two start methods only, and asks one function which to use.
    """
    with patch.object(utils, _CHOICE, lambda: context):
        yield


def start_ranks_by(context: BaseContext) -> None:
    """Ranks that this process starts from now on are processes of `context`."""
    setattr(multiproc_executor, _CHOICE, lambda: context)


def sleep_while_waiting() -> None:
    """Where an engine computes on the CPU, its core and its ranks sleep while they wait for each
    other.

    vLLM 0.32 looks at a message queue without a pause for a second after each message: on a GPU's
    host that is a core to spare, here it is taken from who has the message to make.
    """
    if current_platform.is_cpu():
        setattr(shm_broadcast, _PAUSE, lambda: time.sleep(_PAUSE_S))
