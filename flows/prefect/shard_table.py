"""What Prefect's page shows of a run: the shard table and the closing summary."""

from flows.drive.drive import Ending
from shunt.run.status import RunStatus

MAX_ROWS = 200
"""Of the table; a page with thousands of rows helps nobody. Open shards come first."""


ShardRow = dict[str, str | int]


def shard_table(status: RunStatus) -> list[ShardRow]:
    """One row per shard, the open ones first."""
    ordered = sorted(status.shards, key=lambda shard: (shard.done, shard.shard_id))
    return [
        {
            "shard": shard.shard_id,
            "state": "done" if shard.done else "held" if shard.holder else "waiting",
            "rows": shard.num_rows,
            "finished": shard.num_terminal,
            "errors": shard.num_error_rows,
            "worker": shard.holder,
        }
        for shard in ordered[:MAX_ROWS]
    ]


def run_summary_markdown(ending: Ending) -> str:
    """The closing artifact."""
    summary = ending.summary
    if summary is None:
        spent = "" if ending.spend is None else f" {ending.spend.usd:.2f} USD are spent."
        return f"**{ending.run_id}** stopped: {ending.reason}.{spent} Run it again to go on."
    lines = [
        f"**{ending.run_id}**: {summary.num_ok} of {summary.num_rows} rows are good.",
        "",
        "| | |",
        "|---|---|",
        f"| error rows | {summary.num_errors} |",
        f"| output tokens | {summary.num_output_tokens} |",
        f"| rows carried over between workers | {summary.num_resumed_rows} |",
        f"| rows begun again | {summary.num_restarted_rows} |",
        f"| workers lost | {ending.num_lost} |",
        f"| results | `{summary.directory}` |",
    ]
    if ending.spend is not None:
        lines.append(f"| spent | {ending.spend.usd:.2f} USD |")
    return "\n".join([*lines, *(f"| {code} | {n} |" for code, n in summary.errors.items())])
