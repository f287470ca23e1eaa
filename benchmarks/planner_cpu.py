"""The estimator against real vLLM on this machine's CPU, calibrated from a handful of runs.

Runs SmolLM2-135M in the worker environment (`.venv/worker`), fits the CPU as a user would fit a
new card with `shunt calibrate` (five of the runs), and predicts the others. The machine may be
busy with other work: the spread of the repeats says how steady it was.
"""

import subprocess
from pathlib import Path
from statistics import median

from benchmarks.report import Row, write
from placement.catalogue.constants import load_constants
from placement.catalogue.hardware import load_catalogue
from placement.catalogue.known_model import known_shape
from placement.estimate.calibration import calibrate
from placement.estimate.measured_run import MeasuredRun, Mode, predict

ROOT = Path(__file__).parent.parent
MODEL = ROOT / ".cache" / "models" / "SmolLM2-135M-Instruct"
FITTED = ((64, 32, 1), (64, 96, 8), (256, 32, 8), (64, 32, 24), (512, 16, 4))
HELD_OUT = ((256, 32, 1), (64, 96, 1), (64, 32, 8), (256, 32, 24), (128, 64, 16))
REPEATS = 2


def measure() -> dict[tuple[int, int, int], list[float]]:
    """Requests/s per (prompt, output, concurrency), each repeat in turn."""
    settings = [":".join(map(str, s)) for s in (*FITTED, *HELD_OUT)] * REPEATS
    done = subprocess.run(
        [
            str(ROOT / ".venv" / "worker" / "bin" / "python"),
            "-m",
            "benchmarks.cpu_worker",
            str(MODEL),
            *settings,
        ],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    found: dict[tuple[int, int, int], list[float]] = {}
    for line in done.stdout.splitlines():
        if line.startswith("RUN,"):
            prompt, output, concurrency, rate = line.split(",")[1:]
            key = int(prompt), int(output), int(concurrency)
            found.setdefault(key, []).append(float(rate))
    return found


def run_of(setting: tuple[int, int, int], rate: float) -> MeasuredRun:
    catalogue = load_catalogue([ROOT / "benchmarks" / "data" / "cpu_gpus.csv"])
    prompt, output, concurrency = setting
    return MeasuredRun(
        row_id="",
        source="this machine",
        engine="vllm",
        shape=known_shape("SmolLM2-135M-Instruct"),
        gpu=catalogue.gpu("CPU-2"),
        tp=1,
        pp=1,
        input_tokens=prompt,
        output_tokens=output,
        concurrency=concurrency,
        mode=Mode.STATIC,
        requests_per_s=rate,
    )


def main() -> None:
    measured = measure()
    start = load_constants()
    handful = [run_of(s, median(measured[s])) for s in FITTED]
    fit = calibrate(handful, start, gpus_only=frozenset({"CPU-2"}), max_evaluations=40)
    rows: list[Row] = []
    errors: list[float] = []
    for setting in (*FITTED, *HELD_OUT):
        rates = measured[setting]
        value = predict(run_of(setting, median(rates)), fit.constants)
        kind = "fitted" if setting in FITTED else "held out"
        label = "{} in, {} out, {} at once".format(*setting)
        error = value / median(rates) - 1
        if setting in HELD_OUT:
            errors.append(abs(error))
        rows.append(
            Row(
                f"{kind}: {label}, predicted",
                value,
                "requests/s",
                (min(rates), max(rates)),
                median(rates),
            )
        )
    rows.append(Row("held out: median error", median(errors), "of measured"))
    rows.append(Row("held out: largest error", max(errors), "of measured"))
    write("planner_cpu", rows)


if __name__ == "__main__":
    main()
