"""Fitting the estimator's constants to measured runs: robust least squares in log throughput.

Each row's residual is log(predicted / measured). Deviations of single GPUs are pulled toward the
pool by a Gaussian prior, so that a card with a few rows borrows from the others and a card with
none is the pool. Row ids are never read.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from placement.catalogue.constants import Constants, EngineConstants, GpuDeviation, LinkConstants
from placement.catalogue.hardware import SHIPPED, Catalogue, positive, rows_of
from placement.estimate.measured_run import MeasuredRun, predict

Array = NDArray[np.float64]

_GPU_FIELDS = tuple(GpuDeviation.model_fields)
# Standard deviations of the priors, in log units. Efficiencies of cards differ by tens of per
# cent around the pool; ROCm and PCIe cards by more in decode products and links.
_GPU_PRIOR = {
    "compute": 0.3,
    "decode_compute": 0.5,
    "bandwidth": 0.15,
    "kv_bandwidth": 0.4,
    "attention": 0.5,
    "link": 0.7,
    "host": 0.4,
}
_POOL = ("compute", "decode_compute", "bandwidth", "kv_bandwidth", "attention", "overlap")
_POOL_PRIOR = 0.5
_HOST = ("host_step_s", "host_layer_s", "host_sequence_s", "host_prompt_s")
_HOST_PRIOR = 1.2
_SCALE_PRIOR = 0.3
# A user's own card may be anything, also a CPU: its rows count for more, the pool for less.
_WIDER = 4.0
_NEVER = -30.0  # log of a rate of zero: a row that is predicted not to fit
_LOSS_SCALE = 0.15  # residuals beyond 15 % count linearly, so that outliers do not lead


@dataclass(frozen=True, slots=True)
class Parameter:
    """One free constant: the log of its ratio to the start, or (GPU deviations) its value."""

    group: str
    key: str
    field: str
    prior: float

    def read(self, constants: Constants) -> float:
        """The present value on the scale of the fit."""
        match self.group:
            case "pool":
                return math.log(float(getattr(constants, self.field)))
            case "gpu":
                return float(getattr(constants.gpus.get(self.key, GpuDeviation()), self.field))
            case "link":
                return math.log(float(getattr(constants.links[self.key], self.field)))
            case "shift":
                return 0.0
            case _:
                value = float(getattr(constants.engines[self.key], self.field))
                return value if self.field in _LINEAR else math.log(max(value, 1e-9))


@dataclass(frozen=True, slots=True)
class KernelRate:
    """A micro-benchmark: one efficiency of a card relative to its data sheet.

    Kernels alone run quicker than inside an engine, by a factor that is fitted per field and the
    same for all cards; the differences between cards are what is learned.
    """

    gpu: str
    link: str
    field: str
    ratio: float


def read_kernel_rates(catalogue: Catalogue, file: Path | None = None) -> list[KernelRate]:
    """Rows of kernel_rates.csv. Raises `BadInput`."""
    rates: list[KernelRate] = []
    for where, row in rows_of(file or SHIPPED / "kernel_rates.csv"):
        gpu = catalogue.gpu(row.get("gpu", ""))
        ratio = positive(where, row, "ratio")
        rates.append(KernelRate(gpu.name, gpu.link, row.get("field", ""), ratio))
    return rates


_KERNEL_FIELDS = ("compute", "bandwidth", "link")
# What a kernel's rate says of the same card under an engine, as a standard deviation of the log.
_KERNEL_PRIOR = 0.12

_LINEAR = ("pipeline_stretch", "head_bytes_exponent")
_BOUNDS = {
    "pipeline_stretch": (0.0, 1.0),
    "head_bytes_exponent": (0.0, 1.0),
    "many_heads_slowdown": (0.0, 2.0),
}


@dataclass(frozen=True, slots=True)
class Fit:
    """Calibrated constants and what they leave over."""

    constants: Constants
    log_errors: tuple[float, ...]


def calibrate(
    runs: Sequence[MeasuredRun],
    start: Constants,
    *,
    kernels: Sequence[KernelRate] = (),
    gpus_only: frozenset[str] | None = None,
    max_evaluations: int = 12,
) -> Fit:
    """Constants that fit the runs. `gpus_only` moves the deviations of those GPUs and nothing else
    (a user's handful of runs). Rows without a measurement are ignored."""
    from scipy.optimize import least_squares  # late: few commands need it, and it is half a second

    measured = [run for run in runs if run.requests_per_s]
    parameters = _parameters(measured, start, gpus_only, kernels if gpus_only is None else ())
    origin = np.array([p.read(start) for p in parameters])
    prior = np.array([p.prior for p in parameters])
    centre = np.where([p.group == "gpu" for p in parameters], 0.0, origin)
    touched = _touched(parameters, measured)
    robust = _Robust(measured, parameters, start)
    seen, target = _kernel_rows(parameters, kernels if gpus_only is None else ())

    def residuals(x: Array) -> Array:
        return np.concatenate(
            [robust.all_rows(x), (x - centre) / prior * _LOSS_SCALE, seen @ x - target]
        )

    def jacobian(x: Array) -> Array:
        base = robust.all_rows(x)
        matrix = np.zeros((len(measured) + len(parameters), len(parameters)))
        for j in range(len(parameters)):
            moved = x.copy()
            moved[j] += 1e-4
            rows = touched[j]
            matrix[rows, j] = (robust.rows(moved, rows) - base[rows]) / 1e-4
            matrix[len(measured) + j, j] = _LOSS_SCALE / prior[j]
        return np.concatenate([matrix, seen])

    lower = np.array([_BOUNDS.get(p.field, (-np.inf, np.inf))[0] for p in parameters])
    upper = np.array([_BOUNDS.get(p.field, (-np.inf, np.inf))[1] for p in parameters])
    inside = np.clip(origin, lower + 1e-6, upper - 1e-6)
    found = least_squares(
        residuals, inside, jac=jacobian, bounds=(lower, upper), max_nfev=max_evaluations
    )
    constants = _apply(parameters, np.asarray(found.x, dtype=np.float64), start)
    errors = tuple(log_error(run, constants) for run in measured)
    return Fit(constants, errors)


def log_error(run: MeasuredRun, constants: Constants) -> float:
    """log(predicted / measured); very negative where the run is predicted not to fit."""
    predicted = predict(run, constants)
    if predicted <= 0 or not run.requests_per_s:
        return _NEVER
    return math.log(predicted / run.requests_per_s)


def error_summary(runs: Sequence[MeasuredRun], constants: Constants) -> str:
    """Median and mean absolute error of the prediction, as a sentence."""
    errors = np.abs(np.expm1([log_error(run, constants) for run in runs]))
    return (
        f"{len(errors)} runs, absolute error median {np.median(errors):.1%}, "
        f"mean {np.mean(errors):.1%}"
    )


@dataclass(frozen=True, slots=True)
class _Robust:
    """Residuals after the soft-L1 loss: r -> sign(r) sqrt(rho(r^2)), so that least squares on
    them is the robust fit and a block Jacobian stays simple."""

    runs: list[MeasuredRun]
    parameters: list[Parameter]
    start: Constants

    def all_rows(self, x: Array) -> Array:
        return self.rows(x, np.arange(len(self.runs)))

    def rows(self, x: Array, which: NDArray[np.intp]) -> Array:
        constants = _apply(self.parameters, x, self.start)
        raw = np.array([log_error(self.runs[int(i)], constants) for i in which.tolist()])
        raw = np.where(raw <= _NEVER, 0.0, raw)  # no gradient in a row that does not fit
        scaled = raw / _LOSS_SCALE
        return _LOSS_SCALE * np.sign(raw) * np.sqrt(2 * (np.sqrt(1 + scaled**2) - 1))


def _kernel_rows(
    parameters: Sequence[Parameter], kernels: Sequence[KernelRate]
) -> tuple[Array, Array]:
    """Linear residuals: own deviation + pool + shift of the field = log of the kernel's ratio."""
    place = {(p.group, p.key, p.field): j for j, p in enumerate(parameters)}
    rows = np.zeros((len(kernels), len(parameters)))
    target = np.zeros(len(kernels))
    weight = _LOSS_SCALE / _KERNEL_PRIOR
    for i, kernel in enumerate(kernels):
        field = "efficiency" if kernel.field == "link" else kernel.field
        pool = ("link", kernel.link, field) if kernel.field == "link" else ("pool", "", field)
        for key in (("gpu", kernel.gpu, kernel.field), pool, ("shift", "", kernel.field)):
            if key in place:
                rows[i, place[key]] = weight
        target[i] = weight * math.log(kernel.ratio)
    return rows, target


def _parameters(
    runs: Sequence[MeasuredRun],
    start: Constants,
    gpus_only: frozenset[str] | None,
    kernels: Sequence[KernelRate],
) -> list[Parameter]:
    by_kernel = {kernel.gpu for kernel in kernels}
    gpus = sorted({run.gpu.name for run in runs} | by_kernel)
    split = {run.gpu.name for run in runs if run.tp > 1} | by_kernel
    wanted = gpus if gpus_only is None else [gpu for gpu in gpus if gpu in gpus_only]
    own = [
        Parameter("gpu", gpu, field, _GPU_PRIOR[field] * (1.0 if gpus_only is None else _WIDER))
        for gpu in wanted
        for field in _GPU_FIELDS
        if field != "link" or gpu in split
    ]
    if gpus_only is not None:
        return own
    pool = [Parameter("pool", "", field, _POOL_PRIOR) for field in _POOL]
    links = [
        Parameter("link", link, field, 0.7)
        for link in sorted(
            {run.gpu.link for run in runs if run.tp > 1} | {kernel.link for kernel in kernels}
        )
        for field in ("efficiency", "latency_s")
    ]
    shifts = [Parameter("shift", "", field, 0.5) for field in _KERNEL_FIELDS if kernels]
    return [*own, *pool, *links, *shifts, *_engine_parameters(runs, start)]


def _engine_parameters(runs: Sequence[MeasuredRun], start: Constants) -> list[Parameter]:
    parameters: list[Parameter] = []
    for engine in sorted({run.engine for run in runs}):
        mine = [run for run in runs if run.engine == engine]
        parameters += [Parameter("engine", engine, field, _HOST_PRIOR) for field in _HOST]
        scales = ["compute_scale", "bandwidth_scale"] if len({r.engine for r in runs}) > 1 else []
        if any(run.shape.experts for run in mine):
            scales.append("expert_scale")
        parameters += [Parameter("engine", engine, field, _SCALE_PRIOR) for field in scales]
        if any(run.pp > 1 for run in mine):
            parameters.append(Parameter("engine", engine, "pipeline_stretch", 0.2))
        if start.engines[engine].head_bytes_exponent > 0:
            parameters.append(Parameter("engine", engine, "head_bytes_exponent", 0.5))
            parameters.append(Parameter("engine", engine, "many_heads_slowdown", 0.7))
    return parameters


def _touched(
    parameters: Sequence[Parameter], runs: Sequence[MeasuredRun]
) -> list[NDArray[np.intp]]:
    """For each parameter, the rows that it can move."""

    def moves(parameter: Parameter, run: MeasuredRun) -> bool:
        match parameter.group:
            case "gpu":
                return run.gpu.name == parameter.key
            case "link":
                return run.gpu.link == parameter.key
            case "engine":
                return run.engine == parameter.key
            case "shift":
                return False
            case _:
                return True

    return [np.array([i for i, run in enumerate(runs) if moves(p, run)], int) for p in parameters]


def _apply(parameters: list[Parameter], x: Array, start: Constants) -> Constants:
    pool: dict[str, float] = {}
    gpus: dict[str, dict[str, float]] = {}
    links: dict[str, dict[str, float]] = {}
    engines: dict[str, dict[str, float]] = {}
    for parameter, value in zip(parameters, (float(v) for v in x), strict=True):
        field = parameter.field
        match parameter.group:
            case "pool":
                pool[field] = math.exp(value)
            case "gpu":
                gpus.setdefault(parameter.key, {})[field] = value
            case "link":
                links.setdefault(parameter.key, {})[field] = math.exp(value)
            case "shift":
                continue
            case _:
                plain = value if field in _LINEAR else math.exp(value)
                engines.setdefault(parameter.key, {})[field] = plain
    return start.model_copy(
        update={
            **pool,
            "gpus": {
                **start.gpus,
                **{
                    gpu: start.gpus.get(gpu, GpuDeviation()).model_copy(update=values)
                    for gpu, values in gpus.items()
                },
            },
            "links": {**start.links, **{k: _link(start, k, v) for k, v in links.items()}},
            "engines": {**start.engines, **{k: _engine(start, k, v) for k, v in engines.items()}},
        }
    )


def _link(start: Constants, key: str, values: dict[str, float]) -> LinkConstants:
    return start.links[key].model_copy(update=values)


def _engine(start: Constants, key: str, values: dict[str, float]) -> EngineConstants:
    return start.engines[key].model_copy(update=values)
