"""What a question says of spot interruptions: how long a replacement takes, what is lost."""

from dataclasses import dataclass

# ShuntServe's public timings (ec2_boot_times.csv; pipelines warm 68 to 89 s): 45 s from request to
# ssh, then weights and engine. Used where the question states nothing.
DEFAULT_REPLACE_S = 45.0 + 80.0
# Mean interruption rate of a spot node where none is known: AWS's Spot Instance Advisor puts GPU
# types mostly between "<5 %" and ">20 %" a month; the V100 traces of SkyPilot show 0.2 to 1.2
# changes of a zone per hour. 0.05 per node and hour lies between them.
DEFAULT_SPOT_RATE = 0.05


@dataclass(frozen=True, slots=True)
class InterruptionCost:
    """Seconds to replace a node, and whether a notice lets the pipeline drain first."""

    replace_s: float = DEFAULT_REPLACE_S
    flush_interval_s: float = 10.0
    """Tokens younger than this are lost where a node goes without notice."""
    noticed_share: float = 0.9
    """Share of interruptions that come with the two minutes' notice."""
