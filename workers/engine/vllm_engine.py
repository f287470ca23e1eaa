"""The engine seam over vLLM's `AsyncLLM`."""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace
from multiprocessing.context import BaseContext
from types import ModuleType
from typing import TYPE_CHECKING, Any

from vllm import AsyncLLMEngine, SamplingParams
from vllm.exceptions import VLLMClientError, VLLMServerError
from vllm.inputs.engine import tokens_input
from vllm.lora.request import LoRARequest

from shunt.checkpoint.generation import Finish, Generation, Resumption, tail
from shunt.checkpoint.request import Request
from shunt.dataset.row_error import RowErrorCode
from shunt.errors import EngineDied, RequestAborted, RequestRefused
from workers.engine.config import EngineConfig
from workers.engine.engine_start import StartedEngine, start_engine, stop_engine
from workers.engine.live_request import (
    LiveRequest,
    generation_of_output,
    restarted,
    resumed_from,
    rows_of,
)
from workers.engine.params import sampling_params
from workers.engine.private.saved_tokens import SAVED
from workers.engine.resume_plan import reason_to_restart, refusal

if TYPE_CHECKING:
    from workers.engine.private.tool_calls import CallReader

log = logging.getLogger(__name__)

_GRAMMAR_REFUSED = "the grammar refused the saved tokens"
_STOP_GRACE_S = 15.0
"""Time the engine core has to leave, some 6 s on CPU, before it is killed."""
_CONTEXT_PATIENCE_S = 2.0


_BATCHES_WANTED = 2
"""One that runs and one that waits: where all requests of a batch end in the same step, as with
equal limits they do, the next batch must be there already, or the engine runs short for a step."""


def _call_reader(name: str | None, llm: AsyncLLMEngine) -> "CallReader | None":
    """Raises `EngineDied` where the model has no such calls: every row would be wrong."""
    if name is None:
        return None
    from workers.engine.private.tool_calls import CallReader  # vLLM's protocols take a second

    try:
        return CallReader(name, llm)
    except TypeError as error:
        raise EngineDied(f"model.tool_call_parser: {error}") from error


class _EndedWithError(Exception):
    """The engine ended a request that carried saved tokens with finish reason `error`."""


class VllmEngine:
    """One `AsyncLLM` and the requests in it. Made by `start`; used from one event loop."""

    def __init__(self, started: StartedEngine, config: EngineConfig) -> None:
        self._started = started
        self._llm: AsyncLLMEngine = started.llm
        self._private: ModuleType | None = started.private
        self._traits = started.traits
        self._numerics = started.fingerprint
        self._wanted_requests = _BATCHES_WANTED * config.max_num_seqs
        self._adapters = {
            name: LoRARequest(name, number, path)
            for number, (name, path) in enumerate(sorted(config.adapters.items()), start=1)
        }
        self._calls = _call_reader(config.tool_call_parser, started.llm)
        self._live: dict[str, LiveRequest] = {}
        self._stopped = False
        if self._private is not None:
            self._private.install_front_end(self._llm, self._on_state)

    @classmethod
    async def start(
        cls, config: EngineConfig, processes: BaseContext | None = None
    ) -> "VllmEngine":
        """Start the engine core and wait until it takes requests.

        Its core is a process of the multiprocessing context `processes`, as that of a warm process,
        or spawned. The environment (`engine_environment`) is set before this module is imported.
        Raises `EngineDied` when the engine does not come up.
        """
        return cls(await start_engine(config, processes), config)

    @property
    def fingerprint(self) -> str:
        return str(self._numerics)

    @property
    def wanted_requests(self) -> int:
        return self._wanted_requests

    async def generate(self, request: Request) -> Generation:
        generation = await self._generate(request)
        finish, told = generation.finish, request.calls_of
        if self._calls is None or told is None or finish is None or finish.message:
            return generation
        message = self._calls.message(
            told, request.prompt_token_ids, finish.text, generation.token_ids
        )
        return replace(generation, finish=replace(finish, message=message))

    async def _generate(self, request: Request) -> Generation:
        if self._llm.errored or self._stopped:
            raise EngineDied("the engine is gone")
        assert request.request_id not in self._live, f"{request.request_id} is in the engine"
        saved = request.saved
        if saved is not None and saved.finish is not None:
            return saved
        params = self._params(request)
        fresh = Generation(fingerprint=self.fingerprint)
        if saved is None or not saved.token_ids:
            return await self._run(LiveRequest(request, fresh), params)
        reason = reason_to_restart(request, self._traits)
        if reason is None:
            start = resumed_from(
                saved, fingerprint=self.fingerprint, bit_exact=self._numerics.batch_invariant
            )
            generation = await self._resume(LiveRequest(request, start), params)
            if generation is not None:
                return generation
            reason = _GRAMMAR_REFUSED
        log.info("row restarted request=%s: %s", request.request_id, reason)
        start = restarted(saved, reason=reason, fingerprint=self.fingerprint)
        return await self._run(LiveRequest(request, start), params)

    def progress(self, since: Mapping[str, int] | None = None) -> Mapping[str, Generation]:
        if since is None:
            return {request_id: self._read(live) for request_id, live in self._live.items()}
        return {
            request_id: self._read(live, since[request_id])
            for request_id, live in self._live.items()
            if request_id in since
        }

    def num_new(self, since: Mapping[str, int]) -> int:
        return sum(
            max(0, self._num_tokens(live) - since[request_id])
            for request_id, live in self._live.items()
            if request_id in since
        )

    async def pause(self) -> None:
        try:
            await self._llm.pause_generation(mode="keep", clear_cache=False)
        except VLLMServerError as error:
            raise EngineDied("the engine died before it could be paused") from error

    async def stop(self) -> None:
        if self._stopped:
            return
        self._stopped = True
        await asyncio.to_thread(stop_engine, self._started, _STOP_GRACE_S)
        if self._private is not None:
            self._private.fail_requests(self._llm)
            # vLLM closed its sockets by a callback on this loop, which has run by now or does next.
            await asyncio.sleep(0)
            await asyncio.to_thread(self._private.close_context, self._llm, _CONTEXT_PATIENCE_S)

    # ---- one request ------------------------------------------------------------------------

    def _params(self, request: Request) -> SamplingParams:
        if (why := refusal(request, self._traits, self._adapters)) is not None:
            raise RequestRefused(*why)
        try:
            params = sampling_params(request.sampling)
        except VLLMClientError as error:
            raise RequestRefused(RowErrorCode.INVALID_PARAMETER, str(error)) from error
        if request.calls_of is not None and self._calls is not None:
            self._calls.keep_marks(params, request.calls_of)
        return params

    async def _resume(self, live: LiveRequest, params: SamplingParams) -> Generation | None:
        """Go on from the saved tokens; None where the engine refused them."""
        assert self._private is not None
        saved = live.start
        ended = self._private.finish_of(
            self._llm, await self._core_request(live, params), saved.token_ids
        )
        if ended is not None:
            return replace(saved, finish=Finish(*ended))
        carrying = params.clone()
        carrying.extra_args = {SAVED: list(saved.token_ids)}
        if saved.prompt_logprobs is not None:
            carrying.prompt_logprobs = None
        try:
            return await self._run(live, carrying)
        except _EndedWithError:
            return None

    async def _core_request(self, live: LiveRequest, params: SamplingParams) -> Any:
        """The request as the engine core would get it: validated, end tokens filled in."""
        request = live.request
        try:
            return self._llm.input_processor.process_inputs(
                request.request_id,
                tokens_input(list(request.prompt_token_ids)),
                params,
                supported_tasks=await self._llm.get_supported_tasks(),
            )
        except (VLLMClientError, ValueError) as error:
            raise RequestRefused(RowErrorCode.ENGINE_REFUSED, str(error)) from error
        except VLLMServerError as error:
            raise EngineDied(f"the engine died before request {request.request_id}") from error

    async def _run(self, live: LiveRequest, params: SamplingParams) -> Generation:
        """Generate until the end. A request stays in `_live` when the engine dies under it, or
        drops it."""
        request = live.request
        self._live[request.request_id] = live
        try:
            output = await self._last_output(live, params)
        except (EngineDied, RequestAborted):
            raise
        except BaseException:
            self._live.pop(request.request_id, None)
            raise
        generation = self._read(live)
        del self._live[request.request_id]
        completion = output.outputs[0]
        if completion.finish_reason == "error":
            if live.start.token_ids:
                raise _EndedWithError
            structured = request.sampling.structured_outputs is not None
            raise RequestRefused(
                RowErrorCode.INVALID_SCHEMA if structured else RowErrorCode.ENGINE_REFUSED,
                "the engine ended the request with an error",
            )
        if self._private is None:
            generation = generation_of_output(live, output)
        finish = Finish(completion.finish_reason, completion.stop_reason, completion.text)
        return replace(generation, finish=finish)

    async def _last_output(self, live: LiveRequest, params: SamplingParams) -> Any:
        request = live.request
        stream = self._llm.generate(
            tokens_input(list(request.prompt_token_ids)),
            params,
            request.request_id,
            lora_request=self._adapters.get(request.sampling.adapter or ""),
        )
        last = None
        try:
            async for output in stream:
                last = output
        except (VLLMClientError, ValueError) as error:
            raise RequestRefused(RowErrorCode.ENGINE_REFUSED, str(error)) from error
        except VLLMServerError as error:
            raise EngineDied(f"the engine died under request {request.request_id}") from error
        if last is None or last.outputs[0].finish_reason == "abort":
            what = f"the engine aborted request {request.request_id}"
            raise EngineDied(what) if self._llm.errored else RequestAborted(what)
        return last

    # ---- what the front end holds -----------------------------------------------------------

    def _on_state(self, request_id: str, state: Any) -> None:
        """Called by vLLM's output processor as a request is registered, before its first token."""
        live = self._live.get(request_id)
        if live is None:
            return
        assert self._private is not None
        self._private.prepare_state(state)
        if live.start.token_ids:
            self._private.prime_state(state, live.start.token_ids, live.start.logprobs)
        live.state = state

    def _num_tokens(self, live: LiveRequest) -> int:
        if live.state is None or self._private is None:
            return len(live.start.token_ids)
        return self._private.num_tokens(live.state)

    def _read(self, live: LiveRequest, first: int = 0) -> Generation:
        """The generation from token `first` on; a restarted one from its beginning."""
        start, state, private = live.start, live.state, self._private
        if start.resumption is Resumption.RESTARTED:
            first = 0
        if state is None or private is None:
            return tail(start, first)
        logprobs = None
        if (flat := private.read_logprobs(state)) is not None:
            live.rows.extend(rows_of(flat, len(live.rows)))
            logprobs = tuple(live.rows[first:])
        prompt_logprobs = start.prompt_logprobs
        if prompt_logprobs is None and (flat := private.read_prompt_logprobs(state)) is not None:
            if live.prompt_rows is None and len(flat) == len(live.request.prompt_token_ids):
                live.prompt_rows = (None, *rows_of(flat, 1))
            prompt_logprobs = live.prompt_rows
        return Generation(
            token_ids=tuple(private.read_token_ids(state)[first:]),
            logprobs=logprobs,
            prompt_logprobs=prompt_logprobs if first == 0 else None,
            num_prompt_tokens=len(live.request.prompt_token_ids),
            num_cached_tokens=(start if start.token_ids else state).num_cached_tokens,
            num_resumes=start.num_resumes,
            resumption=start.resumption,
            resume_reason=start.resume_reason,
            fingerprint=start.fingerprint,
        )
