"""A run's plans as they are kept: numbered versions, of which the newest stands."""

from shunt import keys
from shunt.plan.plan import Plan
from shunt.store.numbered import newest_number
from shunt.store.protocol import Store


def newest_version(store: Store, run_id: str) -> int:
    """0 where the run has no plan."""
    return newest_number(store, keys.plan_prefix(run_id))


def newest_plan(store: Store, run_id: str) -> Plan | None:
    version = newest_version(store, run_id)
    return read_plan(store, run_id, version) if version else None


def read_plan(store: Store, run_id: str, version: int) -> Plan:
    """Raises `ObjectMissing`."""
    return Plan.model_validate_json(store.get(keys.plan(run_id, version)))


def keep_plan(store: Store, run_id: str, plan: Plan) -> Plan:
    """Write the plan; where another controller wrote this version first, its plan counts."""
    key = keys.plan(run_id, plan.version)
    if store.put_if_absent(key, plan.model_dump_json().encode()):
        return plan
    return read_plan(store, run_id, plan.version)
