"""What Prefect's page shows of a run: the shard table, bad rows, and the closing summary."""

from collections.abc import Sequence

from flows.drive.drive import Ending, results_of, run_command
from flows.report.sentences import headline, share_of, span_of
from shunt.report.report import BadRow, RunReport
from shunt.run.manifest import Manifest
from shunt.run.status import RunStatus

MAX_ROWS = 200
"""Of a table; a page with thousands of rows helps nobody. Open shards come first."""

ShardRow = dict[str, str | int]


def artifact_key(what: str, run_id: str) -> str:
    """Artifact keys may hold lower-case letters, digits and dashes only."""
    return f"{what}-{run_id.lower().replace('_', '-')}"


def shard_table(status: RunStatus) -> list[ShardRow]:
    """One row per shard, the open ones first. Held is what a living worker holds."""
    living = {node.node_id for node in status.living}
    ordered = sorted(status.shards, key=lambda shard: (shard.done, shard.shard_id))
    return [
        {
            "shard": shard.shard_id,
            "state": "done" if shard.done else "held" if shard.holder in living else "waiting",
            "rows": shard.num_rows,
            "finished": shard.num_terminal,
            "errors": shard.num_error_rows,
            "worker": shard.holder if shard.holder in living else "",
        }
        for shard in ordered[:MAX_ROWS]
    ]


def bad_row_table(rows: Sequence[BadRow]) -> list[dict[str, str]]:
    """Rows without an answer: file and line are in the reason, where preflight found them."""
    return [{"row": row.row_id, "code": row.code, "reason": row.message} for row in rows[:MAX_ROWS]]


def run_summary_markdown(
    ending: Ending, manifest: Manifest, report: RunReport, *, report_at: str
) -> str:
    """The closing artifact: what happened, where everything is, and what to type next."""
    lines = [
        f"## {report.run_id}",
        "",
        headline(report),
        *(["", f"**It stopped: {ending.reason}.**"] if ending.reason else []),
        "",
        "| | |",
        "|---|---|",
        f"| rows with an answer | {report.num_good:,} of {report.num_rows:,} |",
        f"| rows without | {report.num_errors:,} |",
        f"| output tokens | {report.output_tokens:,} |",
        f"| time | {span_of(report.duration_s)} |",
        f"| workers lost | {len(report.interruptions):,} |",
        f"| tokens taken over from them | {report.taken_over_tokens:,} |",
        f"| generated again | {share_of(report.lost_tokens, report.output_tokens)} at most |",
    ]
    if report.money is not None:
        lines.append(f"| spent | {report.money.usd:,.2f} USD |")
    lines += [f"| `{code}` | {count:,} rows |" for code, count in report.errors.items()]
    where = "results" if report.results else "results will be in"
    lines += [
        f"| {where} | `{results_of(manifest)}` |",
        f"| report | `{report_at}` |",
        "",
        *_command("Go on with:", ending.go_on),
        *_command("Write what is finished so far:", ending.partial),
        "Look again from any machine that can read the store:",
        "",
        f"    {run_command('report', manifest)}",
    ]
    return "\n".join(lines)


def _command(sentence: str, command: str) -> list[str]:
    return [sentence, "", f"    {command}", ""] if command else []
