"""Budget and deadline: spot while there is slack, on-demand when it is gone, stop at the cap."""

from datetime import UTC, datetime, timedelta

import pytest

from shunt.fleet.budget import Standing, Verdict, num_affordable, verdict
from shunt.job.job import OnDemandPolicy

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("spent_usd", "cap_usd", "deadline_s", "remaining_s", "policy", "expected"),
    [
        (10.0, None, None, 1e6, "at-deadline", Verdict.SPOT),
        (98.9, 100.0, None, 100.0, "at-deadline", Verdict.SPOT),
        # 12 USD an hour for five minutes: one dollar is kept back.
        (99.0, 100.0, None, 100.0, "at-deadline", Verdict.STOP_COST),
        (0.0, None, 4000.0, 3000.0, "at-deadline", Verdict.SPOT),
        (0.0, None, 4000.0, 3400.0, "at-deadline", Verdict.ON_DEMAND),
        (0.0, None, 4000.0, 3400.0, "never", Verdict.SPOT),
        (0.0, None, 0.0, 100.0, "at-deadline", Verdict.STOP_DEADLINE),
        (99.9, 100.0, 4000.0, 3400.0, "at-deadline", Verdict.STOP_COST),
    ],
)
def test_verdict(
    spent_usd: float,
    cap_usd: float | None,
    deadline_s: float | None,
    remaining_s: float,
    policy: OnDemandPolicy,
    expected: Verdict,
) -> None:
    found = verdict(
        Standing(now=NOW, spent_usd=spent_usd, usd_per_hour=12.0, remaining_s=remaining_s),
        max_cost_usd=cap_usd,
        deadline=None if deadline_s is None else NOW + timedelta(seconds=deadline_s),
        on_demand=policy,
        startup_s=600.0,
    )
    assert found is expected


@pytest.mark.parametrize(
    ("spent_usd", "rate", "expected"),
    [(0.0, 0.0, 2), (0.9, 0.0, 1), (1.95, 0.0, 0), (0.0, 12.0, 1), (0.0, 24.0, 0)],
)
def test_nodes_are_bought_while_their_end_can_be_paid(
    spent_usd: float, rate: float, expected: int
) -> None:
    """Six minutes of each of the first two are 0.996 dollars, of the third ten; two in all."""
    standing = Standing(now=NOW, spent_usd=spent_usd, usd_per_hour=rate, remaining_s=0.0)
    assert num_affordable([9.96, 9.96, 100.0], standing, max_cost_usd=2.0) == expected
