"""In the engine core: a request that arrives with saved tokens enters as a preempted one would.

A preempted request keeps its output tokens, has computed nothing, and is prefilled again as prompt
plus output. Every later consumer of "output so far" handles that state already.
"""

from typing import Any

from workers.engine.held_tokens import HoldingTokens
from workers.engine.private.core import (
    AsyncScheduler,
    Request,
    Scheduler,
    enter_as_preempted,
    refuse_saved_tokens,
    replay_grammar,
    waits_for_grammar,
)
from workers.engine.private.saved_tokens import saved_token_ids


class _Resuming:
    """Mixed into each of vLLM's schedulers: a subclass of the one that it stands in for."""

    def add_request(self, request: Request) -> None:
        saved = saved_token_ids(request.sampling_params)
        if saved:
            enter_as_preempted(request, saved)
        super().add_request(request)  # type: ignore[misc]  # provided by the scheduler beside it

    def _handle_blocked_waiting_request(self: Any, request: Request) -> bool:
        grammar_is_due = waits_for_grammar(request)
        ready = super()._handle_blocked_waiting_request(request)  # type: ignore[misc]
        saved = saved_token_ids(request.sampling_params)
        if not (ready and grammar_is_due and saved):
            return ready
        if replay_grammar(self.structured_output_manager, request, saved):
            return True
        refuse_saved_tokens(self, request)
        return False


class ResumeScheduler(_Resuming, HoldingTokens, Scheduler):
    """For engines that schedule synchronously."""


class ResumeAsyncScheduler(_Resuming, HoldingTokens, AsyncScheduler):
    """For engines that schedule asynchronously, the default on GPU."""
