"""`shunt plan` and `shunt calibrate` as a user meets them."""

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from flows.cli import app
from shunt.plan.plan import Plan

RUN = CliRunner()

JOB: dict[str, object] = {
    "model": {"path": "Qwen3-8B", "other": "not planning's business"},
    "run": {"also": "not"},
    "plan": {
        "workload": {"num_prompts": 1000, "input_tokens": 763, "output_tokens": 232},
        "offerings": [
            {"instance_type": "g6e.xlarge", "usd_per_hour": 0.87, "max_nodes": 2},
            {"instance_type": "g6.xlarge", "market": "on-demand", "max_nodes": 2},
        ],
        "constraints": {"max_stages": 3, "max_sequences": 128},
    },
}


def job(folder: Path, **changes: object) -> str:
    """A job file; `changes` replace fields of its plan."""
    made = {**JOB, "plan": {**JOB["plan"], **changes}}  # type: ignore[dict-item]
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(made))
    return str(path)


def test_a_plan_as_json(tmp_path: Path) -> None:
    result = RUN.invoke(app, ["plan", job(tmp_path), "--json"])
    assert result.exit_code == 0, result.output
    made = Plan.model_validate_json(result.stdout)
    assert made.pipelines
    assert made.certificate.gap < 0.05


def test_a_plan_for_people(tmp_path: Path) -> None:
    result = RUN.invoke(app, ["plan", job(tmp_path), "--explain"])
    assert result.exit_code == 0, result.output
    for word in ("pipeline-0", "certificate", "gap", "offerings", "used:", "USD per 1M"):
        assert word in result.output


@pytest.mark.parametrize("suffix", ["png", "html"])
def test_a_picture(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"plan.{suffix}"
    result = RUN.invoke(app, ["plan", job(tmp_path), "--plot", str(file)])
    assert result.exit_code == 0, result.output
    assert file.stat().st_size > 1000


def test_replanning_from_a_file(tmp_path: Path) -> None:
    path = job(tmp_path)
    current = tmp_path / "plan.json"
    current.write_text(RUN.invoke(app, ["plan", path, "--json"]).stdout)
    result = RUN.invoke(app, ["plan", path, "--json", "--current", str(current)])
    assert "still the best plan" in Plan.model_validate_json(result.stdout).notes[-1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"offerings": [{"instance_type": "x1.big", "max_nodes": 1}]}, "unknown instance type"),
        (
            {"offerings": [{"instance_type": "g6.xlarge", "max_nodes": 1, "usd_per_hour": -1}]},
            "negative price",
        ),
        (
            {"workload": {"num_prompts": 0, "input_tokens": 1, "output_tokens": 1}},
            "0 prompts",
        ),
        ({"workload": {"num_prompts": 1}}, "give lengths_file"),
        ({"offerings": []}, "no offerings"),
        (
            {"workload": {"num_prompts": 9, "input_tokens": 1, "output_tokens": float("nan")}},
            "must be a number",
        ),
        (
            {
                "objective": {"kind": "value"},
                "offerings": [{"instance_type": "g6.xlarge", "max_nodes": 1, "usd_per_hour": 0}],
            },
            "costs nothing",
        ),
        ({"speed": 9}, "plan.speed"),
        ({"engine": "abacus"}, "no constants for engine"),
        ({"objective": {"kind": "cost"}}, "give a deadline"),
    ],
)
def test_bad_input_is_said_and_exits_2(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    result = RUN.invoke(app, ["plan", job(tmp_path, **changes)])
    assert result.exit_code == 2, result.output
    assert message in result.output.replace("\n", " ")


def test_no_plan_is_said_and_exits_1(tmp_path: Path) -> None:
    few = [{"instance_type": "g6.xlarge", "max_nodes": 1, "usd_per_hour": 1}]
    path = Path(job(tmp_path, offerings=few))
    text = path.read_text().replace("Qwen3-8B", "Llama-3.1-70B-Instruct")
    path.write_text(text)
    result = RUN.invoke(app, ["plan", str(path)])
    assert result.exit_code == 1
    assert "would help" in result.output
    told = json.loads(RUN.invoke(app, ["plan", str(path), "--json"]).stdout)
    assert told["advice"]


def test_calibrating_a_card(tmp_path: Path) -> None:
    """Predict, take 80 % of it as measured, fit: the error falls."""
    header = "row_id,engine,engine_version,model,weight_dtype,gpu,tp,pp,input_len,output_len,"
    header += "concurrency,mode,req_s\n"
    body = [f"r{c},vLLM,0.32,Qwen3-8B,bf16,L40S,1,1,512,128,{c},closed loop," for c in (1, 8, 32)]
    file = tmp_path / "runs.csv"
    file.write_text(header + "\n".join(body) + "\n")
    said = RUN.invoke(app, ["calibrate", str(file), "--predict"])
    assert said.exit_code == 0, said.output
    predicted = [float(line.split(",")[2]) for line in said.stdout.splitlines()[1:]]
    file.write_text(
        header + "\n".join(f"{b}{0.8 * p}" for b, p in zip(body, predicted, strict=True)) + "\n"
    )
    out = tmp_path / "constants.json"
    result = RUN.invoke(app, ["calibrate", str(file), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "after:" in result.output
    assert json.loads(out.read_text())["format_version"] == 1
    assert RUN.invoke(app, ["calibrate", str(tmp_path / "none.csv")]).exit_code == 2
