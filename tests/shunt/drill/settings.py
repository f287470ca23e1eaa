"""Ten nodes at a thousand tokens per second together: numbers for sums by hand."""

from shunt.drill.simulation import DrillSettings

SETTINGS = DrillSettings(
    total_tokens=1_000_000,
    nodes=10,
    tokens_per_s=100,
    spot_usd_per_hour=1.0,
    on_demand_usd_per_hour=3.0,
    startup_s=100,
    drain_s=0.0,
    unnoticed=0.0,
)
