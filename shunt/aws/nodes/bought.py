"""Where the nodes of a run were bought, for whoever shows them: read once each."""

from dataclasses import dataclass, field

from shunt import keys
from shunt.aws.nodes.intent import Outcome
from shunt.aws.nodes.pool import Pool
from shunt.store.protocol import Store


@dataclass(slots=True)
class BoughtNodes:
    """One listing per look, and a read for each launch that is new."""

    store: Store
    run_id: str
    _pools: dict[str, Pool] = field(default_factory=dict[str, Pool])
    _read: set[str] = field(default_factory=set[str])

    def pools(self) -> dict[str, Pool]:
        """By node id."""
        for key in self.store.list(keys.intent_prefix(self.run_id)):
            if key.endswith(keys.OUTCOME_SUFFIX) and key not in self._read:
                self._read.add(key)
                outcome = Outcome.model_validate_json(self.store.get(key))
                if outcome.instance_id:
                    self._pools[outcome.instance_id] = outcome.pool
        return dict(self._pools)
