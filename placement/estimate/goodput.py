"""What spot interruptions cost a pipeline: expected goodput as a share of its throughput."""

from placement.question.interruption import InterruptionCost
from placement.question.workload import Workload


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
