"""What spot interruptions cost a pipeline: expected goodput as a share of its throughput."""

from dataclasses import dataclass

from placement.workload import Workload

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


def lost_s_per_interruption(
    cost: InterruptionCost, workload: Workload, *, concurrency: float, prefill_s: float
) -> float:
    """Pipeline-seconds lost to one interruption of any of its nodes.

    The pipeline is down until the node is replaced (`replace_s`; with a notice its two minutes
    are spent working, so min(120, replace) of it is saved). After that all sequences in flight are
    prefilled again with what they had made: G x (s + o/2) tokens, here as a multiple of one
    prompt's prefill. Without a notice the last half flush interval is generated twice.
    """
    overlap = cost.noticed_share * min(120.0, cost.replace_s)
    share = workload.mean_context / max(workload.mean_input, 1.0)
    again = concurrency * prefill_s * share
    regenerated = (1.0 - cost.noticed_share) * cost.flush_interval_s / 2
    return cost.replace_s - overlap + again + regenerated


def goodput_share(interruptions_per_hour: float, lost_s: float) -> float:
    """Long-run share of time that a pipeline works: 1 / (1 + rate x lost)."""
    return 1.0 / (1.0 + interruptions_per_hour * lost_s / 3600.0)
