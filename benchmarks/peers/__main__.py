"""Runs the peers in turns, undisturbed and killed once; prints the table."""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.runners import PEERS, Answers, Peer, environment, faults
from benchmarks.report import Row, write
from benchmarks.step_log import read_steps
from benchmarks.workloads import short
from shunt.testing.processes import descendants

TARGET_KILLED = 1.25
_POLL_S = 0.1
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Run:
    """One batch, from its first command to its end."""

    wall_s: float
    tokens: int
    """Computed in all, prompt and output, by every engine that there was."""
    peak_mb: float
    """Of the process tree, engine included: shared pages count once in each process."""
    answers: Answers


def main() -> int:
    """All rounds; the table is of the medians."""
    options = _options(sys.argv[1:])
    lines = batch_lines(options.seed, options.rows, options.tokens)
    quiet: dict[str, list[Run]] = {peer.name: [] for peer in PEERS}
    killed: dict[str, list[Run]] = {peer.name: [] for peer in PEERS}
    with tempfile.TemporaryDirectory() as name:
        for number in range(options.rounds):
            for peer in PEERS:
                folder = Path(name) / f"{number}-{peer.name.replace(' ', '-')}"
                run = measure(peer, folder / "quiet", lines, kill_after_s=None)
                quiet[peer.name].append(run)
                half_s = run.wall_s / 2
                killed[peer.name].append(
                    measure(peer, folder / "killed", lines, kill_after_s=half_s)
                )
    expected = dict(quiet[PEERS[0].name][0].answers)
    reference_s = [run.wall_s for run in quiet[PEERS[0].name]]
    rows: list[Row] = []
    for peer in PEERS:
        rows += _rows(f"{peer.name}, undisturbed", quiet[peer.name], expected, reference_s)
        rows += _rows(f"{peer.name}, killed at half", killed[peer.name], expected, reference_s)
    write("peers", rows)
    return 0


def batch_lines(seed: int, rows: int, tokens: int) -> str:
    """An OpenAI batch file of chats; `tokens` for each answer."""
    return "\n".join(
        json.dumps(
            {
                "custom_id": f"row-{number}",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {
                    "model": "model",
                    "messages": [{"role": "user", "content": prompt}],
                    "max_tokens": tokens,
                    "temperature": 0,
                    "ignore_eos": True,
                },
            }
        )
        for number, prompt in enumerate(short(seed, rows).prompts)
    )


def measure(peer: Peer, folder: Path, lines: str, *, kill_after_s: float | None) -> Run:
    """Run the batch; where it is killed, run it again by the same command."""
    folder.mkdir(parents=True)
    (folder / "batch.jsonl").write_text(lines)
    peer.lay_out(folder)
    command = peer.command(folder)
    started_s, peak_mb = time.monotonic(), 0.0
    if kill_after_s is not None:
        _, peak_mb = _attempt(command, folder, until_s=started_s + kill_after_s)
    code, again_mb = _attempt(command, folder, until_s=None)
    wall_s = time.monotonic() - started_s
    if code != 0:
        raise RuntimeError(f"{peer.name}: exit code {code}; see {folder}")
    return Run(
        wall_s=wall_s,
        tokens=sum(step.tokens for step in read_steps(folder)),
        peak_mb=max(peak_mb, again_mb),
        answers=peer.answers(folder),
    )


def _attempt(command: Sequence[str], folder: Path, *, until_s: float | None) -> tuple[int, float]:
    """(exit code, peak memory); at `until_s` all its processes are killed."""
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environment(folder), stdout=log, stderr=subprocess.STDOUT
        )
    peak_mb = 0.0
    while process.poll() is None:
        tree = [process.pid, *descendants(process.pid)]
        peak_mb = max(peak_mb, sum(map(_resident_mb, tree)))
        if until_s is not None and time.monotonic() >= until_s:
            _kill(tree)
        time.sleep(_POLL_S)
    return process.returncode, peak_mb


def _kill(tree: Sequence[int]) -> None:
    """As a machine goes: all at once, without notice."""
    for pid in tree:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue  # it went with its parent


def _resident_mb(pid: int) -> float:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return pages * _PAGE_BYTES / 1e6


def _rows(
    name: str, runs: list[Run], expected: dict[str, str], reference_s: list[float]
) -> list[Row]:
    walls = [run.wall_s for run in runs]
    ratios = [wall / reference for wall, reference in zip(walls, reference_s, strict=True)]
    found = [faults(run.answers, expected) for run in runs]
    ours = name.startswith("shunt, killed")
    ratio = statistics.median(ratios)
    return [
        Row(f"{name}: wall", statistics.median(walls), "s", (min(walls), max(walls))),
        Row(
            f"{name}: wall over undisturbed {PEERS[0].name}",
            ratio,
            "ratio",
            (min(ratios), max(ratios)),
            1.0,
            f"<= {TARGET_KILLED}" if ours else None,
            ratio <= TARGET_KILLED if ours else None,
        ),
        Row(f"{name}: tokens computed", statistics.median(run.tokens for run in runs), "tokens"),
        Row(f"{name}: peak memory", statistics.median(run.peak_mb for run in runs), "MB"),
        *(
            Row(f"{name}: rows {kind}", max(one[kind] for one in found), "rows")
            for kind in ("lost", "doubled", "different")
        ),
    ]


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=96)
    parser.add_argument("--tokens", type=int, default=64, help="of each answer")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
