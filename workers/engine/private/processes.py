"""How vLLM starts its processes: an engine core by the front end, ranks by the core's executor."""

from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import BaseContext

from vllm.v1.engine import utils
from vllm.v1.executor import multiproc_executor


@contextmanager
def cores_started_by(context: BaseContext) -> Iterator[None]:
    """Engine cores that this process starts inside the block are processes of `context`.

    vLLM accepts the names of two start methods only, and asks one function which to use.
    """
    original = utils.get_mp_context
    utils.get_mp_context = lambda: context  # type: ignore[assignment]
    try:
        yield
    finally:
        utils.get_mp_context = original


def start_ranks_by(context: BaseContext) -> None:
    """Ranks that this process starts from now on are processes of `context`."""
    multiproc_executor.get_mp_context = lambda: context  # type: ignore[assignment]
