"""`shunt drill`: in virtual time from the job's own numbers, and on workers of this machine."""

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from flows.cli import app
from flows.drill.estimate import fake_mean_tokens
from flows.drill.market import DrillMarket, Prices
from flows.drill.run import RealDrill
from shunt.drill.report import DrillReport
from shunt.drill.simulation import Handling
from shunt.drill.trace import Trace
from shunt.job.job_file import load_job
from shunt.job.sampling import Sampling

FOUR = "t_s,active_instances\n0,4\n900,1\n1800,4\n"
NUMBERS = ("--tokens", "4e6", "--tokens-per-s", "500")
PRICES = ("--spot-price", "1", "--on-demand-price", "3")


def lay_out(folder: Path, *, rows: int, trace: str = FOUR, **model: object) -> None:
    prompts = [json.dumps({"id": f"row-{n}", "prompt": f"prompt {n}"}) for n in range(rows)]
    (folder / "prompts.jsonl").write_text("\n".join(prompts) + "\n")
    job = {
        "name": "small",
        "model": {"path": "none", "engine_kind": "fake", **model},
        "input": {"path": "prompts.jsonl"},
        "sampling": {"max_tokens": 40, "ignore_eos": True},
        "fleet": {"workers": 2},
        "shard_prompts": 10,
        "checkpoint_interval_s": 0.2,
        "lease_term_s": 6,
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    (folder / "trace.csv").write_text(trace)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def drilled(*argv: str) -> DrillReport:
    result = CliRunner().invoke(app, ["drill", "job.yaml", *argv, "--json"])
    assert result.exit_code == 0, result.output
    return DrillReport.model_validate_json(result.stdout)


def test_three_ways_in_virtual_time(folder: Path) -> None:
    """Four nodes of 500 tokens/s need 2,000 s for 4e6 tokens, after 240 s of start."""
    lay_out(folder, rows=20)
    report = drilled("--trace", "trace.csv", *NUMBERS, *PRICES)
    assert (report.mode, report.nodes) == ("virtual", 4)
    demand, ours = report.arm(Handling.ON_DEMAND), report.arm(Handling.SHUNT)
    assert demand is not None
    assert ours is not None
    assert demand.finish_s == 2240
    assert demand.cost_usd == pytest.approx(3 * 4 * 2240 / 3600)
    assert ours.finish_s is not None
    assert ours.finish_s > demand.finish_s
    assert ours.cost_usd < demand.cost_usd
    text = CliRunner().invoke(app, ["drill", "job.yaml", "--trace", "trace.csv", *NUMBERS, *PRICES])
    for words in ("spot, shunt", "no handling", "on-demand", "against on-demand", "goodput"):
        assert words in text.output


def test_a_fleet_of_hundreds_against_a_shipped_trace(folder: Path) -> None:
    lay_out(folder, rows=20)
    more = ("--nodes", "480", "--tokens", "1e10", "--tokens-per-s", "1500")
    report = drilled("--trace", "g4dn-us-east-1d-11-23", *more)
    assert report.nodes == 480
    ours = report.arm(Handling.SHUNT)
    assert ours is not None
    assert ours.interruptions > 480
    assert any("0.526 USD on demand" in line for line in report.assumptions)


def test_the_job_itself_says_how_much_work_there_is_and_how_fast_a_node_is(folder: Path) -> None:
    """100 rows of 40 tokens; a node of the fake engine makes 10 x 20 tokens/s: 20 s on one."""
    lay_out(folder, rows=100, fake_tokens_per_s=20, engine={"max_num_seqs": 8})
    (folder / "trace.csv").write_text("t_s,active_instances\n0,1\n")
    report = drilled("--trace", "trace.csv", "--startup-s", "0")
    demand = report.arm(Handling.ON_DEMAND)
    assert demand is not None
    assert demand.finish_s == pytest.approx(20)
    assert report.assumptions[0] == "40.0 output tokens a row, as the fake engine"


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--trace", "g4dn-us-east-1c-11-20", "--pool", "g4dn"], "is one recording"),
        (["--trace", "trace.csv", "--pool", "p5"], "no rows for p5"),
        (["--trace", "prompts.jsonl"], "not a CSV with the columns"),
        (["--trace", "trace.csv", "--nodes", "1000000000"], "100000"),
        (["--trace", "trace.csv", "--unnoticed", "2"], "equal to 1"),
        (["--trace", "trace.csv", "--tokens", "nan"], "equal to 1"),
    ],
)
def test_nonsense_is_refused_in_a_line(folder: Path, argv: list[str], told: str) -> None:
    lay_out(folder, rows=5)
    result = CliRunner().invoke(app, ["drill", "job.yaml", *argv], env={"COLUMNS": "200"})
    assert result.exit_code == 2, result.output
    assert told in result.output
    assert "Traceback" not in result.output


def test_no_number_is_cut_on_a_narrow_terminal(folder: Path) -> None:
    lay_out(folder, rows=5)
    argv = ["drill", "job.yaml", "--trace", "trace.csv", *NUMBERS, *PRICES]
    assert "…" not in CliRunner().invoke(app, argv, env={"COLUMNS": "60"}).output


def test_what_is_not_known_is_asked_for(folder: Path) -> None:
    lay_out(folder, rows=5)
    result = CliRunner().invoke(app, ["drill", "job.yaml", "--trace", "trace.csv"])
    assert result.exit_code == 2
    assert "--tokens-per-s" in result.output
    result = CliRunner().invoke(app, ["drill", "job.yaml", "--trace", "nonsense"])
    assert result.exit_code == 2
    assert "none of those shipped" in result.output


def test_mean_length_of_the_fake_engine() -> None:
    """It ends at one token in 64: never after one token only if it must make two."""
    assert fake_mean_tokens(Sampling(max_tokens=1)) == pytest.approx(1.0)
    assert fake_mean_tokens(Sampling(max_tokens=100, ignore_eos=True)) == 100
    assert fake_mean_tokens(Sampling(max_tokens=100_000)) == pytest.approx(64)
    assert fake_mean_tokens(Sampling(max_tokens=100_000, min_tokens=10)) == pytest.approx(74)


def test_a_job_for_ec2_is_drilled_on_workers_of_this_machine(folder: Path) -> None:
    """Into the drill's own store, without the job's limits: nothing is bought."""
    lay_out(folder, rows=5)
    more = ["fleet.kind=ec2", "fleet.ec2.region=us-east-1", "store.uri=s3://bucket/team"]
    more += ["fleet.ec2.subnets={us-east-1a: subnet-1}", "fleet.ec2.instance_types=[g6.xlarge]"]
    play = RealDrill(
        job=load_job(folder / "job.yaml", more),
        market=DrillMarket("quiet", Trace((0.0,), (2,)), 2, Prices(1.0, 3.0), 120.0, 0.0, seed=0),
        directory=folder / "drill",
        speedup=1.0,
    )
    for handling in Handling:
        job = play.job_of(handling)
        assert (job.fleet.kind, job.fleet.workers, job.fleet.ec2) == ("local", 2, None)
        assert Path(job.store.uri) == folder / "drill" / handling.value / "store"
        saves_nothing = job.checkpoint_interval_s > 1e6
        assert saves_nothing == (handling is Handling.NONE)


def test_a_real_drill_interrupts_workers_and_counts_what_it_cost(folder: Path) -> None:
    """Two workers; one is taken after 7 s with notice and comes back after 9 s, at tenfold speed.

    60 rows of 40 tokens at 5 x 20 tokens/s a worker are 12 s of both. Shunt generates nothing
    again; where nothing is saved between shards, the kill costs what the shard had.
    """
    lay_out(
        folder,
        rows=60,
        trace="t_s,active_instances\n0,2\n70,1\n90,2\n",
        fake_tokens_per_s=20,
        engine={"max_num_seqs": 4},
    )
    report = drilled(
        "--trace", "trace.csv", "--real", "--speedup", "10", "--unnoticed", "0", *PRICES
    )
    arms = {arm.handling: arm for arm in report.arms}
    assert (report.mode, report.nodes, report.speedup) == ("real", 2, 10)
    assert {arm.tokens for arm in report.arms} == {2400}
    assert [arms[h].interruptions for h in arms] == [1, 1, 0]
    assert arms[Handling.SHUNT].tokens_again == 0
    assert arms[Handling.NONE].tokens_again > 0
    for arm in report.arms:
        assert arm.finish_s is not None
        assert arm.finish_s >= 120 - 10  # as seen twice a second, ten times as fast
        assert arm.node_hours * 3600 <= 2 * arm.finish_s
        price = 3 if arm.handling is Handling.ON_DEMAND else 1
        assert arm.cost_usd == pytest.approx(arm.node_hours * price)
    assert not (folder / "runs").exists()
    assert len(list((folder / ".shunt/drills").glob("small-*/*/results/*/results.jsonl"))) == 3
