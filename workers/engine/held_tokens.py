"""In the engine core: tokens of unfinished requests are handed to the front end every few steps.

A batch worker needs a token when its request ends or a segment is due, not at once. Handing over
every step costs a message, its decoding and a wake of the front end per step, on cores that the
engine uses itself. What is held costs, when the engine core dies, up to `HOLD_STEPS` steps that are
generated again; nothing is held of a request that is alone in the engine, so that the token at
which a prompt kills engines is known exactly.
"""

from collections.abc import Mapping
from typing import Any

from workers.engine.private.core import EngineCoreOutput, EngineCoreOutputs, hand_over_at_pause

HOLD_STEPS = 16
"""Some 0.2 s on a GPU, 0.8 s on two CPU cores: little beside a flush interval."""
KEY = "shunt_hold_steps"
"""Name in vLLM's `additional_config` of another number of steps, for who looks more often."""


class HoldingTokens:
    """Mixed in before each of vLLM's schedulers: a subclass of the one that it stands in for."""

    def __init__(self: Any, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._held: dict[int, dict[str, EngineCoreOutput]] = {}
        self._steps_held = 0
        additional = self.vllm_config.additional_config
        named = additional.get(KEY) if isinstance(additional, dict) else None
        self._hold_steps = HOLD_STEPS if named is None else int(named)

    def update_from_output(self: Any, *args: Any, **options: Any) -> dict[int, EngineCoreOutputs]:
        by_client = super().update_from_output(*args, **options)  # type: ignore[misc]
        self._steps_held += 1
        telling = self._steps_held >= self._hold_steps or self._must_tell()
        for client, outputs in by_client.items():
            held = self._held.setdefault(client, {})
            for out in outputs.outputs:
                if (before := held.pop(out.request_id, None)) is not None:
                    out.new_token_ids = before.new_token_ids + out.new_token_ids
                    out.prefill_stats = before.prefill_stats or out.prefill_stats
            if not telling:
                outputs.outputs = [out for out in outputs.outputs if not self._hold(held, out)]
        if telling:
            return _with_held(by_client, self.take_held())
        return {client: outputs for client, outputs in by_client.items() if _says(outputs)}

    def take_held(self: Any) -> Mapping[int, dict[str, EngineCoreOutput]]:
        """What is held of the requests that are still there; nothing is held after it."""
        held, self._held, self._steps_held = self._held, {}, 0
        return {
            client: {name: out for name, out in outputs.items() if name in self.requests}
            for client, outputs in held.items()
        }

    def _must_tell(self: Any) -> bool:
        """Paused: what the front end holds is final. Alone: its deaths must be told apart."""
        return len(self.requests) <= 1 or self.pause_state != type(self.pause_state).UNPAUSED

    def _hold(self: Any, held: dict[str, EngineCoreOutput], out: EngineCoreOutput) -> bool:
        """Hold the output; False where it must go."""
        request = self.requests.get(out.request_id)
        if request is None or request.sampling_params.stop or not _only_tokens(out):
            return False
        held[out.request_id] = out
        return True


def install() -> None:
    """Let a pause, after which nothing is generated, hand over what is held first."""
    hand_over_at_pause(lambda scheduler: _with_held({}, scheduler.take_held()))


def _only_tokens(out: EngineCoreOutput) -> bool:
    """Whether it may wait: no end of a request, no logprobs; tokens alone can be joined."""
    return (
        out.finish_reason is None
        and out.new_logprobs is None
        and out.new_prompt_logprobs_tensors is None
        and out.prompt_token_id_logprobs is None
        and out.new_sampling_mask is None
        and out.routed_experts is None
        and out.kv_transfer_params is None
        and out.ec_transfer_params is None
        and not out.num_nans_in_logits
        and not out.events
    )


def _with_held(
    by_client: dict[int, EngineCoreOutputs], held: Mapping[int, dict[str, EngineCoreOutput]]
) -> dict[int, EngineCoreOutputs]:
    """The step's outputs, and what is held of requests that had none in the step."""
    for client, waiting in held.items():
        if client in by_client:
            by_client[client].outputs.extend(waiting.values())
        elif waiting:
            by_client[client] = EngineCoreOutputs(outputs=list(waiting.values()))
    return by_client


def _says(outputs: EngineCoreOutputs) -> bool:
    return bool(outputs.outputs or outputs.finished_requests or outputs.scheduler_stats)
