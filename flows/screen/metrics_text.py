"""A look at a run in Prometheus's text format, for the textfile collector of its node exporter.

Names begin with `shunt_run_`, units are base units. The labels are the run, and for workers their
state: a handful of series for each run, whatever its size.
"""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from flows.screen.picture import Look
from shunt.run.node_status import NodeState

_PREFIX = "shunt_run_"


def metrics_text(look: Look) -> str:
    """All series of one look."""
    lines: list[str] = []
    for name, kind, help_text, values in _series(look):
        lines += [f"# HELP {_PREFIX}{name} {help_text}", f"# TYPE {_PREFIX}{name} {kind}"]
        for labels, value in values:
            named = {"run": look.status.run_id, **labels}
            told = ",".join(f'{label}="{text}"' for label, text in named.items())
            lines.append(f"{_PREFIX}{name}{{{told}}} {value:g}")
    return "\n".join([*lines, ""])


def write_metrics(look: Look, path: Path) -> None:
    """Whole or not at all: a collector may read at any moment. Raises `OSError`."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(metrics_text(look), encoding="utf-8")
    unfinished.replace(path)


_Values = list[tuple[dict[str, str], float]]


def _series(look: Look) -> Iterator[tuple[str, str, str, _Values]]:
    status, outlook = look.status, look.outlook
    yield "rows", "gauge", "Rows of the run.", [({}, status.rows_total)]
    yield "rows_ended", "gauge", "Rows that have ended.", [({}, status.rows_terminal)]
    yield "rows_failed", "gauge", "Rows that ended without an answer.", [({}, status.rows_failed)]
    yield ("output_tokens_total", "counter", "Tokens generated and saved by all workers.",
           [({}, status.output_tokens)])  # fmt: skip
    yield ("tokens_per_second", "gauge", "Tokens that living workers generate in a second.",
           [({}, outlook.tokens_per_s)])  # fmt: skip
    states = Counter(node.state for node in status.living)
    yield ("workers", "gauge", "Living workers by state.",
           [({"state": state.value}, states[state]) for state in NodeState])  # fmt: skip
    yield ("interruptions_total", "counter", "Workers that were taken or lost.",
           [({}, status.num_interruptions)])  # fmt: skip
    if outlook.eta_s is not None:
        soonest_s, latest_s = outlook.eta_s
        yield ("remaining_seconds", "gauge", "Time that is left, as a range.",
               [({"bound": "soonest"}, soonest_s), ({"bound": "latest"}, latest_s)])  # fmt: skip
    if (spend := status.spend) is not None:
        yield "cost_usd", "gauge", "What the nodes have cost.", [({}, float(spend.usd))]
        yield ("cost_usd_per_hour", "gauge", "What living nodes cost an hour.",
               [({}, float(spend.usd_per_hour))])  # fmt: skip
        if spend.max_cost_usd is not None:
            yield "max_cost_usd", "gauge", "The budget.", [({}, spend.max_cost_usd)]
