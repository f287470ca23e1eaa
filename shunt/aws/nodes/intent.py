"""What we are about to launch, written before the call: a lost reply launches nothing twice.

A slot's intents are numbered and created if absent; the next one is born only when the outcome of
the one before is known and its node has ended. A new controller finds an intent without outcome and
repeats the very same call under the same token, which EC2 answers with the same instance.
"""

import uuid
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict

from shunt import keys
from shunt.aws.nodes.pool import Pool
from shunt.store.protocol import Store


class Intent(BaseModel):
    """One launch that may have happened."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1] = 1
    run_id: str
    slot: str
    number: int
    token: str
    operation: Literal["create_fleet", "run_instances"]
    request: dict[str, Any]
    """The whole request: a token may only be repeated with the same parameters."""
    created_at: AwareDatetime


class Outcome(BaseModel):
    """What became of an intent. Written once, if absent."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1] = 1
    instance_id: str = ""
    """Empty: nothing was launched, and nothing ever will be under its token."""
    instance_type: str = ""
    zone: str = ""
    market: Literal["spot", "on-demand"] = "spot"
    reason: str = ""
    settled_at: AwareDatetime

    @property
    def pool(self) -> Pool:
        """Where the instance was bought."""
        return Pool(self.instance_type, self.zone, self.market)


def new_token() -> str:
    """At most 64 characters, as EC2 wants."""
    return uuid.uuid4().hex


def declare(store: Store, intent: Intent) -> Intent:
    """Write the intent; where another controller was first, its intent counts."""
    key = keys.intent(intent.run_id, intent.slot, intent.number)
    if store.put_if_absent(key, intent.model_dump_json().encode()):
        return intent
    return Intent.model_validate_json(store.get(key))


def settle(store: Store, intent: Intent, outcome: Outcome) -> Outcome:
    """Write the outcome; the first one counts."""
    key = keys.intent_outcome(intent.run_id, intent.slot, intent.number)
    if store.put_if_absent(key, outcome.model_dump_json().encode()):
        return outcome
    return Outcome.model_validate_json(store.get(key))


def pools_of(store: Store, run_id: str) -> dict[str, Pool]:
    """Where each node of the run was bought, by instance id."""
    outcomes = [outcome for _, outcome in read_intents(store, run_id) if outcome is not None]
    return {outcome.instance_id: outcome.pool for outcome in outcomes if outcome.instance_id}


def read_intents(store: Store, run_id: str) -> list[tuple[Intent, Outcome | None]]:
    """All intents of the run with their outcomes, in the order of slot and number."""
    names = list(store.list(keys.intent_prefix(run_id)))
    settled = {key for key in names if key.endswith(keys.OUTCOME_SUFFIX)}
    found: list[tuple[Intent, Outcome | None]] = []
    for key in names:
        if key in settled:
            continue
        intent = Intent.model_validate_json(store.get(key))
        outcome_key = keys.intent_outcome(run_id, intent.slot, intent.number)
        outcome = None
        if outcome_key in settled:
            outcome = Outcome.model_validate_json(store.get(outcome_key))
        found.append((intent, outcome))
    return found
