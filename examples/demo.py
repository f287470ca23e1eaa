"""The demo: a batch on two workers, one of them killed in the middle, every row at the end.

Run by `make demo`. Nothing here is staged: the workers are processes with vLLM in them, the kill is
a SIGKILL, and the proof at the end is `shunt verify`. `--svg FILE` keeps a picture of it.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.panel import Panel

from flows.drive.drive import drive
from flows.report.page import render_page
from flows.screen.view import PlainView, show_ending
from flows.surroundings import keep_quiet, surroundings
from shunt.job.job_file import load_job
from shunt.report.reading import read_report
from shunt.run.manifest import read_manifest
from shunt.run.outlook import Outlook
from shunt.run.status import RunStatus
from shunt.run.verify import verify
from shunt.store.config import open_configured_store

JOB = Path(__file__).parent / "demo.yaml"
KILL_AT_SHARE = 0.3
"""Of the rows: late enough to have something to lose, early enough to see it carried on."""


class DemoView(PlainView):
    """Kills one worker once the run is well under way."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._console = console
        self._killed = False

    def seen(self, status: RunStatus, outlook: Outlook) -> None:
        super().seen(status, outlook)
        busy = [node for node in status.living if node.running]
        under_way = status.rows_terminal >= KILL_AT_SHARE * status.rows_total
        if under_way and len(busy) > 1 and not self._killed:
            self._killed = True
            victim = busy[0]
            self._console.print(
                f"\n[bold red]kill -9 {victim.pid}[/]: worker {victim.node_id} dies with "
                f"{victim.running} requests in flight\n",
                highlight=False,
            )
            os.kill(victim.pid, signal.SIGKILL)


def main(arguments: list[str]) -> int:
    """Run the demo from a clean slate; returns the process's exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--svg", type=Path, help="keep a picture of what was printed in this file")
    svg: Path | None = parser.parse_args(arguments).svg
    keep_quiet()
    console = Console(record=svg is not None, width=100 if svg else None)
    started_s = time.monotonic()
    job = load_job(JOB)
    shutil.rmtree(Path(job.store.uri).parent, ignore_errors=True)
    console.print(
        Panel(
            "Two workers run SmolLM2-135M with vLLM on this machine's CPU. In the middle one of "
            "them gets SIGKILL. The other takes over what it was writing, from the last saved "
            "token, and no row is lost or doubled.",
            title="shunt demo",
        )
    )
    console.print("starting two engines (about half a minute)...")
    store = open_configured_store(job.store, environment=os.environ)
    ending = drive(job, store, surroundings(job, threading.Event()), DemoView(console))
    console.print()
    show_ending(console, ending)
    report = verify(store, read_manifest(store, ending.run_id))
    console.print(
        f"[bold green]verified[/]: {report.num_rows} rows, each exactly once, from "
        f"{report.num_segments} segments"
        if report.ok
        else f"[bold red]not verified[/]: {report.problems}",
        highlight=False,
    )
    if ending.summary is not None:
        show_rows(console, Path(ending.summary.directory) / "results.jsonl")
        page = Path(job.store.uri).parent / "report.html"
        told = read_report(store, ending.run_id, now=datetime.now(UTC))
        page.write_text(render_page(told), encoding="utf-8")
        console.print(f"\nreport: {os.path.relpath(page)} (open it in a browser)", highlight=False)
    console.print(f"\n{time.monotonic() - started_s:.0f} s in all", highlight=False)
    if svg is not None:
        console.save_svg(str(svg), title="make demo")
    return 0 if report.ok and ending.code == 0 else 1


def show_rows(console: Console, path: Path) -> None:
    """Three rows, two of them carried over from the dead worker if there are."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    moved = [row for row in rows if row["num_resumes"]][:2]
    others = [row for row in rows if row not in moved and row["num_output_tokens"] < 60]
    for row in [*moved, *others][:3]:
        how = (
            f"{row['resumption']}, moved {row['num_resumes']}x"
            if row["num_resumes"]
            else "not moved"
        )
        prompt = row.get("prompt") or row["messages"][-1]["content"]
        console.print(f"\n[bold]{row['id']}[/] [dim]({how})[/]", highlight=False)
        console.print(f"  [dim]prompt[/]  {_short(prompt)}", markup=True, highlight=False)
        console.print(f"  [dim]answer[/]  {_short(row['generated_text'])}", highlight=False)


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 150 else f"{flat[:150]}..."


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
