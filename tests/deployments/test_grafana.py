"""The dashboard asks for metrics that there are."""

import json
import re
from pathlib import Path
from typing import Any

from flows.screen.metrics_text import metrics_text, write_metrics
from flows.screen.picture import Look
from shunt.run.outlook import Outlook
from shunt.run.status import StatusReader
from shunt.testing.memory_store import MemoryStore
from tests.shunt.report.story import RUN, story_store
from tests.workers.bench import Bench
from tests.workers.test_worker import long_prompts
from workers.metrics import WorkerCollector

DASHBOARD = Path(__file__).parents[2] / "deployments/grafana/runs.json"
NAME = re.compile(r"\bshunt_[a-z_]+")


def panels() -> list[dict[str, Any]]:
    return json.loads(DASHBOARD.read_text())["panels"]


def look() -> Look:
    status = StatusReader(story_store(), RUN).read()
    return Look(status, Outlook(100.0, {}, (60.0, 90.0)))


def exported() -> set[str]:
    """Names of the control side and of a worker, which lives on an event loop."""
    names = set(re.findall(r"^# TYPE (\S+)", metrics_text(look()), re.MULTILINE))
    worker = Bench(long_prompts(1)).worker(MemoryStore())
    for family in WorkerCollector(worker).collect():
        names |= {sample.name for sample in family.samples}
    return names


async def test_every_metric_of_the_dashboard_is_exported() -> None:
    asked = {name for p in panels() for t in p["targets"] for name in NAME.findall(t["expr"])}
    assert len(asked) > 12
    assert asked <= exported(), asked - exported()


def test_every_panel_says_what_it_shows_and_none_covers_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        assert panel["title"]
        assert panel["description"]
        grid = panel["gridPos"]
        cells = {(x, y) for x in range(grid["x"], grid["x"] + grid["w"])
                 for y in range(grid["y"], grid["y"] + grid["h"])}  # fmt: skip
        assert not cells & taken
        assert all(x < 24 for x, _ in cells)
        taken |= cells


async def test_names_have_one_prefix_a_base_unit_and_few_series() -> None:
    text = metrics_text(look())
    series = [line for line in text.splitlines() if not line.startswith("#")]
    assert len(series) < 30
    for line in series:
        assert re.fullmatch(
            r'shunt_run_[a-z_]+\{run="[^"]+"(,(state|bound)="[a-z]+")?\} [\d.e+]+', line
        )
    assert not re.search(r"_(ms|millis|percent|kb|mb)\b", " ".join(exported()))


def test_the_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "run.prom"
    write_metrics(look(), path)
    assert path.read_text() == metrics_text(look())
    assert [file.name for file in tmp_path.iterdir()] == ["run.prom"]
