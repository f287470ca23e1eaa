"""How well the estimator predicts measured runs, and where its constants come from.

    python -m benchmarks.planner_estimator                errors with the shipped constants, and
                                                          leave-one-group-out
    python -m benchmarks.planner_estimator --write        fit and write the shipped constants

Groups are left out whole: every (GPU, model) pair, every GPU, every model. The comparison is a
plain data-sheet roofline (all efficiencies 1, no host time, no latency). Row ids are never read.
"""

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from benchmarks.report import Row, write
from placement.catalogue.constants import Constants, EngineConstants, LinkConstants, load_constants
from placement.catalogue.hardware import load_catalogue
from placement.catalogue.known_model import known_shape
from placement.estimate.calibration import calibrate, log_error, read_kernel_rates
from placement.estimate.measured_run import MeasuredRun, engine_profile, read_runs

DATA = Path(__file__).parent / "data" / "measured_throughput.csv"
SHIPPED = Path(__file__).parent.parent / "placement" / "catalogue" / "constants.json"


def _engine(**changes: object) -> EngineConstants:
    """A guess to begin the fit from: milliseconds of host time per step."""
    guess: dict[str, object] = {
        "host_step_s": 3e-3,
        "host_layer_s": 3e-5,
        "host_sequence_s": 5e-5,
        "host_prompt_s": 1e-3,
        "chunked_prefill": False,
        "prefill_tokens": 4096,
    }
    return EngineConstants.model_validate({**guess, **changes})


def guess() -> Constants:
    """Where the fit starts. Links: share of the data sheet that PCIe and NVLink all-reduces reach;
    only those of cards in the data are fitted, the others keep these figures."""
    return Constants(
        compute=0.6,
        decode_compute=0.6,
        bandwidth=0.8,
        kv_bandwidth=0.9,
        attention=0.5,
        overlap=3.0,
        links={
            "nvlink": LinkConstants(efficiency=0.6, latency_s=1e-5),
            "xgmi": LinkConstants(efficiency=0.4, latency_s=1.5e-5),
            "pcie5": LinkConstants(efficiency=0.11, latency_s=3e-5),
            "pcie4": LinkConstants(efficiency=0.11, latency_s=4e-5),
            "pcie3": LinkConstants(efficiency=0.11, latency_s=5e-5),
        },
        gpus={},
        engines={
            "vllm-2024": _engine(),
            "vllm-2024-rocm": _engine(head_bytes_exponent=0.7, many_heads_slowdown=2.0),
            "vllm-0.6": _engine(),
            "vllm-0.8-v0": _engine(host_step_s=20e-3, pipeline_stretch=0.05),
            "trtllm-2024": _engine(host_step_s=1e-3),
            "trtllm-0.21": _engine(host_step_s=1e-3, pipeline_stretch=0.05),
            "trtllm-1.0": _engine(host_step_s=1e-3, chunked_prefill=True),
        },
    )


def data_sheet() -> Constants:
    """The plain roofline: every efficiency 1, nothing but work."""
    plain = _engine(host_step_s=0, host_layer_s=0, host_sequence_s=0, host_prompt_s=0)
    perfect = LinkConstants(efficiency=1.0, latency_s=0.0)
    return Constants(
        compute=1.0,
        decode_compute=1.0,
        bandwidth=1.0,
        kv_bandwidth=1.0,
        attention=1.0,
        overlap=30.0,
        hop_latency_s=0.0,
        links=dict.fromkeys(guess().links, perfect),
        gpus={},
        engines=dict.fromkeys(guess().engines, plain),
    )


def measured_runs(file: Path = DATA) -> list[MeasuredRun]:
    """All measured rows."""
    return read_runs(
        file, catalogue=load_catalogue(), shape_of=known_shape, engine_of=engine_profile
    )


def fit(runs: Sequence[MeasuredRun], start: Constants, evaluations: int) -> Constants:
    """Constants of these runs, cards without runs by their kernels."""
    kernels = read_kernel_rates(load_catalogue())
    return calibrate(runs, start, kernels=kernels, max_evaluations=evaluations).constants


def fit_all(runs: Sequence[MeasuredRun]) -> Constants:
    """vLLM rows fix the pool and the cards; TensorRT-LLM rows only their own engine constants.

    `vllm`, the engine that plans are for, has no measured rows of its own yet: it has the kernels
    and pipelines of 0.8, the newest measured, with chunked prefill and the host time of 2024 (the
    23 ms of every step on 0.8 V0 were that engine's own). `spread` is the leave-one-group-out
    error, which callers set with `with_spread`.
    """
    vllm = fit([r for r in runs if r.engine.startswith("vllm")], guess(), 25)
    other = calibrate([r for r in runs if r.engine.startswith("trtllm")], vllm, max_evaluations=12)
    engines = dict(vllm.engines)
    for name, constants in other.constants.engines.items():
        if name.startswith("trtllm"):
            engines[name] = constants
    engines["vllm"] = engines["vllm-2024"].model_copy(
        update={
            "chunked_prefill": True,
            "prefill_tokens": 8192,
            "pipeline_stretch": engines["vllm-0.8-v0"].pipeline_stretch,
            "compute_scale": engines["vllm-0.8-v0"].compute_scale,
            "bandwidth_scale": engines["vllm-0.8-v0"].bandwidth_scale,
        }
    )
    return vllm.model_copy(
        update={"engines": engines, "calibrated_on": "benchmarks/data/measured_throughput.csv"}
    )


def leave_out(
    runs: Sequence[MeasuredRun], key: Callable[[MeasuredRun], str], fitted: Constants
) -> dict[str, float]:
    """Log error of every row, each predicted by a fit that never saw its group."""
    errors: dict[str, float] = {}
    for group in sorted({key(run) for run in runs}):
        rest = [run for run in runs if key(run) != group]
        cards = {run.gpu.name for run in rest}
        engines = {run.engine for run in rest}
        start = fitted.model_copy(
            update={
                "gpus": {name: own for name, own in fitted.gpus.items() if name in cards},
                "engines": {
                    name: own if name in engines else guess().engines[name]
                    for name, own in fitted.engines.items()
                    if name != "vllm"
                },
            }
        )
        blind = fit(rest, start, 6)
        errors |= {run.row_id: log_error(run, blind) for run in runs if key(run) == group}
    return errors


def error_rows(name: str, runs: Sequence[MeasuredRun], logs: Sequence[float]) -> list[Row]:
    """Median and mean absolute error, with the targets where the issue sets one."""
    errors = np.abs(np.expm1(np.array(logs)))
    goal = name.startswith("left out (GPU, model)")
    median, mean = float(np.median(errors)), float(np.mean(errors))
    rows = [
        Row(
            f"{name}: median",
            median,
            "of measured",
            None,
            None,
            "<= 0.12" if goal else None,
            median <= 0.12 if goal else None,
        ),
        Row(
            f"{name}: mean",
            mean,
            "of measured",
            None,
            None,
            "<= 0.20" if goal else None,
            mean <= 0.20 if goal else None,
        ),
    ]
    if len(runs) > 100:
        measured = [math.log(r.requests_per_s or 1.0) for r in runs]
        rank = float(spearmanr(np.array(measured) + np.array(logs), measured).statistic)
        rows.append(
            Row(
                f"{name}: rank correlation",
                rank,
                "",
                None,
                None,
                ">= 0.95" if goal else None,
                rank >= 0.95 if goal else None,
            )
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    runs = measured_runs()
    vllm = [run for run in runs if run.engine.startswith("vllm")]
    constants = fit_all(runs) if arguments.write else load_constants()
    rows: list[Row] = []
    groupings: list[tuple[str, Callable[[MeasuredRun], str]]] = [
        ("(GPU, model)", lambda r: f"{r.gpu.name} {r.shape.name}"),
        ("GPU", lambda r: r.gpu.name),
        ("model", lambda r: r.shape.name),
    ]
    for label, key in groupings:
        errors = leave_out(vllm, key, constants)
        logs = [errors[run.row_id] for run in vllm]
        rows += error_rows(f"left out {label}, vLLM, {len(vllm)} rows", vllm, logs)
        if label == "(GPU, model)" and arguments.write:
            constants = with_spread(constants, vllm, logs)
        for group in sorted({key(run) for run in vllm}):
            some = [run for run in vllm if key(run) == group]
            part = [errors[run.row_id] for run in some]
            rows += error_rows(f"  left out {group}, {len(some)} rows", some[:1], part)
    if arguments.write:
        SHIPPED.write_text(constants.model_dump_json(indent=1) + "\n", encoding="utf-8")
    plain = data_sheet()
    for engine in sorted({run.engine for run in runs}):
        some = [run for run in runs if run.engine == engine]
        name = f"fitted, {engine}, {len(some)} rows"
        rows += error_rows(name, some, [log_error(run, constants) for run in some])
    name = f"data-sheet roofline, vLLM, {len(vllm)} rows"
    rows += error_rows(name, vllm, [log_error(run, plain) for run in vllm])
    write("planner_estimator", rows)


def with_spread(
    constants: Constants, runs: Sequence[MeasuredRun], logs: Sequence[float]
) -> Constants:
    """The forecast's spread: half the width of the middle 68 % of blind log errors, per engine."""
    engines = dict(constants.engines)
    overall = _half_width(logs)
    for name in engines:
        own = [log for run, log in zip(runs, logs, strict=True) if run.engine == name]
        spread = max(overall, _half_width(own)) if own else 1.5 * overall
        engines[name] = engines[name].model_copy(update={"spread": round(spread, 4)})
    return constants.model_copy(update={"engines": engines})


def _half_width(logs: Sequence[float]) -> float:
    low, high = np.quantile(np.array(logs), [0.16, 0.84])
    return float(high - low) / 2


if __name__ == "__main__":
    main()
