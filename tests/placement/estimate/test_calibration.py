"""Calibration recovers constants that made the data, and a handful of rows is enough."""

import math
from dataclasses import replace

import pytest

from placement.catalogue.constants import Constants, GpuDeviation
from placement.catalogue.hardware import Catalogue
from placement.catalogue.known_model import known_shape
from placement.errors import BadInput
from placement.estimate.calibration import calibrate, log_error, read_kernel_rates
from placement.estimate.measured_run import MeasuredRun, Mode, engine_profile, predict


def runs(catalogue: Catalogue, constants: Constants, gpu: str) -> list[MeasuredRun]:
    """What the constants predict, as if it had been measured."""
    made: list[MeasuredRun] = []
    for concurrency in (1, 8, 64):
        for prompt, output in ((128, 128), (1024, 128), (128, 1024)):
            run = MeasuredRun(
                row_id=f"{concurrency}-{prompt}-{output}",
                source="made",
                engine="vllm",
                shape=known_shape("Meta-Llama-3-8B"),
                gpu=catalogue.gpu(gpu),
                tp=1,
                pp=1,
                input_tokens=prompt,
                output_tokens=output,
                concurrency=concurrency,
                mode=Mode.STATIC,
                requests_per_s=None,
            )
            made.append(replace(run, requests_per_s=predict(run, constants)))
    return made


def test_a_cards_own_speed_is_recovered(catalogue: Catalogue, constants: Constants) -> None:
    """Rows of a card that computes 30 % and reads 10 % slower than the pool: nine rows suffice."""
    slow = GpuDeviation(compute=math.log(0.7), bandwidth=math.log(0.9))
    truth = constants.model_copy(update={"gpus": {**constants.gpus, "RTX-4090": slow}})
    rows = runs(catalogue, truth, "RTX-4090")
    before = [abs(log_error(row, constants)) for row in rows]
    fit = calibrate(rows, constants, gpus_only=frozenset({"RTX-4090"}))
    assert max(before) > 0.05
    assert max(abs(e) for e in fit.log_errors) < 0.3 * max(before)
    assert fit.constants.gpus["RTX-4090"].compute < -0.1
    assert fit.constants.gpus["RTX-4090"].bandwidth < -0.03


def test_other_cards_stay_as_they_are(catalogue: Catalogue, constants: Constants) -> None:
    rows = [replace(r, requests_per_s=1.0) for r in runs(catalogue, constants, "RTX-4090")]
    fit = calibrate(rows, constants, gpus_only=frozenset({"RTX-4090"}))
    others = {name: own for name, own in fit.constants.gpus.items() if name != "RTX-4090"}
    assert others == {name: own for name, own in constants.gpus.items() if name != "RTX-4090"}
    assert fit.constants.engines == constants.engines


def test_a_model_that_does_not_fit_is_predicted_so(
    catalogue: Catalogue, constants: Constants
) -> None:
    run = replace(runs(catalogue, constants, "L4")[0], shape=known_shape("Qwen3-32B"))
    assert predict(run, constants) == 0.0


def test_more_requests_at_once_never_lower_the_throughput(
    catalogue: Catalogue, constants: Constants
) -> None:
    base = replace(runs(catalogue, constants, "L40S")[0], mode=Mode.CLOSED)
    rates = [predict(replace(base, concurrency=c), constants) for c in (1, 2, 4, 16, 64, 256)]
    assert rates == sorted(rates)


def test_engines_by_version() -> None:
    assert engine_profile("vLLM", "0.8.1 (V0, modified)", "L4") == "vllm-0.8-v0"
    assert engine_profile("vLLM", "2024, as in the paper", "MI300X") == "vllm-2024-rocm"
    assert engine_profile("vLLM", "0.32", "L4") == "vllm"
    with pytest.raises(BadInput, match="may be of"):
        engine_profile("llama.cpp", "1", "L4")


def test_kernel_rates_read(catalogue: Catalogue) -> None:
    rates = read_kernel_rates(catalogue)
    assert {rate.field for rate in rates} == {"compute", "bandwidth", "link", "host"}
