"""Pipelines: our executor against vLLM's at one layout, bytes on the link, and time to start.

Two stages of TP 1, SmolLM2-135M in bfloat16. Both engines are up at once and generate in turn, so
that whatever else the machine does meets both. The bytes are those that the interface of a network
namespace counts (needs root).

    python -m benchmarks.pipeline
"""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import Row, paired_ratio, write
from workers.testing.network_hosts import Hosts, network

REPOSITORY = Path(__file__).resolve().parent.parent
WORKER_PYTHON = REPOSITORY / ".venv/worker/bin/python"
CHILD = (str(WORKER_PYTHON), "-m", "benchmarks.pipeline_child")
TARGET = 0.97
HIDDEN = 576
"""Of SmolLM2-135M."""
DTYPE_BYTES = 2
LINK_TARGET = 1.10
"""Headers of TCP and Ethernet, heartbeats and the scheduler's messages come on top."""
_STAGES = {
    "core": "front end, and import in the engine core",
    "ranks": "ranks: import and weights",
    "cache": "KV cache, until requests are taken",
    "first_token": "first token",
}


def main() -> int:
    """Run, print the table, write the results."""
    rows = _compared(_lines("compare"))
    if os.geteuid() == 0:
        rows.append(_link_bytes())
    write("pipeline", rows)
    return 0


def _compared(lines: Sequence[dict[str, Any]]) -> list[Row]:
    start, *rounds = lines
    rates = {
        kind: [line["tokens_per_s"] for line in rounds if line["kind"] == kind]
        for kind in ("plain", "ours")
    }
    total = sum(start.values())
    return [
        paired_ratio(
            "tokens/s over plain vLLM, PP 2 x TP 1", rates["ours"], rates["plain"], at_least=TARGET
        ),
        Row(
            metric="tokens/s, PP 2 x TP 1",
            value=statistics.median(rates["ours"]),
            unit="tok/s",
            spread=(min(rates["ours"]), max(rates["ours"])),
            reference=statistics.median(rates["plain"]),
        ),
        Row(metric="from plan to first token", value=total, unit="s"),
        *(
            Row(metric=f"of which {told}", value=start[name], unit="s")
            for name, told in _STAGES.items()
        ),
    ]


def _lines(*arguments: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [*CHILD, *arguments], cwd=REPOSITORY, check=True, stdout=subprocess.PIPE, text=True
    )
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def _link_bytes() -> Row:
    with network(2) as hosts:
        addresses = tuple(hosts.addresses.values())
        with (
            subprocess.Popen([*hosts.prefixes[1], *CHILD, "follow", *addresses], cwd=REPOSITORY),
            subprocess.Popen(
                [*hosts.prefixes[0], *CHILD, "head", *addresses],
                cwd=REPOSITORY,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            ) as head,
        ):
            assert head.stdin is not None
            assert head.stdout is not None
            # The first answer says that it is up; the bytes are those of the second.
            per_token: list[float] = []
            for _ in range(4):
                before = _sent(hosts)
                print("go", file=head.stdin, flush=True)
                tokens = json.loads(head.stdout.readline())["tokens"]
                per_token.append((_sent(hosts) - before) / tokens)
            head.stdin.close()
    theory = 2 * HIDDEN * DTYPE_BYTES
    value = statistics.median(per_token[1:])
    return Row(
        metric="bytes per token from stage to stage",
        value=value,
        unit="bytes",
        spread=(min(per_token[1:]), max(per_token[1:])),
        reference=theory,
        target=f"<= {LINK_TARGET:.2f} x 2 x hidden x dtype",
        met=value <= LINK_TARGET * theory,
    )


def _sent(hosts: Hosts) -> int:
    """Bytes that the head's host has sent to its follower's."""
    counter = "/sys/class/net/v0/statistics/tx_bytes"
    return int(subprocess.check_output([*hosts.prefixes[0], "cat", counter]))


if __name__ == "__main__":
    sys.exit(main())
