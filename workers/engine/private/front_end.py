"""Private names in the worker's process, which holds `AsyncLLM`: prime, read and end requests."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from vllm.v1.core.sched.utils import check_stop
from vllm.v1.engine import EngineCoreRequest
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.detokenizer import IncrementalDetokenizer
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.engine.output_processor import OutputProcessor, RequestState
from vllm.v1.outputs import LogprobsLists
from vllm.v1.request import Request
from vllm.v1.worker.gpu.sample import logit_bias as v2_logit_bias

from shunt.checkpoint.generation import TokenLogprobs

MAX_ALLOWED_TOKEN_IDS_V2 = v2_logit_bias.MAX_NUM_ALLOWED_TOKEN_IDS
MAX_LOGIT_BIAS_V2 = v2_logit_bias.MAX_NUM_LOGIT_BIAS_TOKENS
MAX_STOP_TOKEN_IDS_V2 = v2_logit_bias.MAX_NUM_STOP_TOKEN_IDS
"""Above these, model runner V2 raises in the worker."""


def core_processes(llm: AsyncLLM) -> list[Any]:
    """The engine cores that this front end started, as multiprocessing processes."""
    engine_manager = getattr(llm.engine_core, "resources").engine_manager  # noqa: B009
    return list(engine_manager.processes) if engine_manager is not None else []


class PrimingOutputProcessor(OutputProcessor):
    """Tells `on_state` of every request's front-end state before its first token arrives."""

    on_state: Callable[[str, RequestState], None]

    def add_request(self, request: EngineCoreRequest, *args: Any, **kwargs: Any) -> None:
        super().add_request(request, *args, **kwargs)
        state = self.request_states[request.request_id]
        self.on_state(state.external_req_id, state)


def install_front_end(llm: AsyncLLM, on_state: Callable[[str, RequestState], None]) -> None:
    processor = llm.output_processor
    processor.__class__ = PrimingOutputProcessor
    processor.on_state = on_state  # type: ignore[attr-defined]  # of the class just given to it


def fail_calls_at_death(llm: AsyncLLM) -> None:
    """Let calls that wait for a reply of the engine core fail when it dies; vLLM forgets them.

    On the event loop, before the first call.
    """
    client: Any = llm.engine_core
    client._ensure_output_queue_task()

    def fail_calls(_: Any) -> None:
        for reply in client.utility_results.values():
            if not reply.done():
                reply.set_exception(EngineDeadError())

    client.resources.output_queue_task.add_done_callback(fail_calls)


def stop_reading(llm: AsyncLLM) -> None:
    """End the task that reads the engine core's output; from a thread beside the event loop.

    Left running, it takes a shutdown for a death, and logs one.
    """
    if (reading := llm.output_handler) is not None:
        reading.get_loop().call_soon_threadsafe(reading.cancel)


def fail_requests(llm: AsyncLLM) -> None:
    """Wake whoever waits for a request of an engine that was shut down: nothing else would."""
    llm.output_processor.propagate_error(EngineDeadError())


def close_context(llm: AsyncLLM, timeout_s: float) -> None:
    """Close the ZeroMQ context that vLLM leaves to the garbage collector, and its threads.

    Its sockets are closed by then. Were one left open, closing would block: hence beside us.
    """
    context = getattr(llm.engine_core, "resources").ctx  # noqa: B009
    closing = threading.Thread(target=context.destroy, kwargs={"linger": 0}, daemon=True)
    closing.start()
    closing.join(timeout_s)


def prepare_state(state: RequestState) -> None:
    """Decoding every logprob's token to text is the dearest work of the front end; not wanted."""
    assert state.logprobs_processor is not None
    state.logprobs_processor.tokenizer = None


def prime_state(
    state: RequestState,
    token_ids: Sequence[int],
    logprobs: Sequence[TokenLogprobs] | None,
) -> None:
    """Replay saved tokens through the objects that would have seen them live."""
    detokenizer, processor = state.detokenizer, state.logprobs_processor
    assert detokenizer is not None
    assert processor is not None
    detokenizer.update(list(token_ids), False)
    if logprobs and processor.num_logprobs is not None:
        for row in logprobs:
            lists = LogprobsLists(
                np.array([row.token_ids], np.int32),
                np.array([row.logprobs], np.float32),
                np.array([row.rank], np.int32),
                None,
            )
            processor._update_sample_logprobs(lists)


def read_token_ids(state: RequestState) -> list[int]:
    """The output tokens that the front end holds, saved ones included."""
    assert state.detokenizer is not None
    return state.detokenizer.output_token_ids


def num_tokens(state: RequestState) -> int:
    assert state.detokenizer is not None
    return state.detokenizer.num_output_tokens()


def read_logprobs(state: RequestState) -> Any:
    assert state.logprobs_processor is not None
    return state.logprobs_processor.logprobs


def read_prompt_logprobs(state: RequestState) -> Any:
    assert state.logprobs_processor is not None
    return state.logprobs_processor.prompt_logprobs


def finish_of(
    llm: AsyncLLM, core_request: EngineCoreRequest, token_ids: Sequence[int]
) -> tuple[str, int | str | None, str] | None:
    """How `token_ids` end the request, by vLLM's own checks: (reason, stop reason, text) or None.

    A checkpoint may hold the last token of a generation whose finish was lost.
    """
    params = core_request.sampling_params
    assert params is not None
    request = Request.from_engine_core_request(core_request, None)
    request.append_output_token_ids(list(token_ids))
    stopped = check_stop(request, llm.vllm_config.model_config.max_model_len)
    reason = str(request.get_finished_reason()) if stopped else None
    detokenizer = IncrementalDetokenizer.from_new_request(llm.renderer.tokenizer, core_request)
    detokenizer.update(list(token_ids[:-1]), False)
    stop_string = detokenizer.update([token_ids[-1]], reason == "stop")
    if stop_string is not None:
        return "stop", stop_string, detokenizer.get_next_output_text(True, False)
    if reason is None:
        return None
    return reason, request.stop_reason, detokenizer.get_next_output_text(True, False)
