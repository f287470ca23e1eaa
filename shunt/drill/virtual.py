"""A drill in virtual time: the three ways to meet a trace, by the simulation."""

import random

from shunt.drill.report import DrillArm
from shunt.drill.simulation import DrillSettings, Handling, simulate
from shunt.drill.trace import Trace

HANDLINGS = (Handling.SHUNT, Handling.NONE, Handling.ON_DEMAND)


def virtual_arms(settings: DrillSettings, trace: Trace, *, seed: int) -> list[DrillArm]:
    """Each way meets the same trace and draws from the same seed."""
    return [_arm(settings, trace, handling, seed) for handling in HANDLINGS]


def _arm(settings: DrillSettings, trace: Trace, handling: Handling, seed: int) -> DrillArm:
    result = simulate(settings, trace, handling, rng=random.Random(seed))
    return DrillArm(
        handling=handling,
        finish_s=result.finish_s,
        cost_usd=result.cost_usd,
        tokens=settings.total_tokens if result.finish_s is not None else 0.0,
        tokens_again=result.tokens_again,
        interruptions=result.interruptions,
        node_hours=result.node_hours,
    )
