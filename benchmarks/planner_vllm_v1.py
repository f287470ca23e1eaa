"""Host time of vLLM's V1 engine, from the few dated figures that others have published.

    python -m benchmarks.planner_vllm_v1 [--write]

Six figures of one model on three cards say how long the host takes for a step, a sequence and a
prompt, and no more: kernels, links and pipelines stay as they were measured on older engines. The
table gives each figure, the prediction before, and the prediction with the others alone (left out).
"""

import argparse
import math
from pathlib import Path

import numpy as np
from scipy.optimize import least_squares

from placement.catalogue.constants import ENGINE, Constants, load_constants
from placement.catalogue.hardware import SHIPPED, load_catalogue
from placement.catalogue.known_model import known_shape
from placement.estimate.measured_run import MeasuredRun, predict, read_runs

DATA = Path(__file__).parent / "data" / "vllm_v1_published.csv"
_FIELDS = ("host_step_s", "host_sequence_s", "host_prompt_s")
# Standard deviation of the log of a host time around that of 2024, which V1 has cut by several.
_PRIOR = 1.5
_ERROR = 0.15


def published() -> list[MeasuredRun]:
    """The rows with their sources."""
    return read_runs(
        DATA, catalogue=load_catalogue(), shape_of=known_shape, engine_of=lambda *_: ENGINE
    )


def fit(runs: list[MeasuredRun], constants: Constants) -> Constants:
    """The constants with the host times of V1."""
    old = constants.engines["vllm-2024"]
    start = np.log([getattr(old, field) for field in _FIELDS])

    def moved(x: np.ndarray) -> Constants:
        values = {f: float(v) for f, v in zip(_FIELDS, np.exp(x), strict=True)}
        engine = constants.engines[ENGINE].model_copy(update=values)
        return constants.model_copy(update={"engines": {**constants.engines, ENGINE: engine}})

    def residuals(x: np.ndarray) -> np.ndarray:
        errors = [math.log(predict(r, moved(x)) / (r.requests_per_s or 1.0)) for r in runs]
        return np.concatenate([np.array(errors) / _ERROR, (x - start) / _PRIOR])

    return moved(least_squares(residuals, start).x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the constants")
    arguments = parser.parse_args()
    before, runs = load_constants(), published()
    for run in runs:
        blind = fit([r for r in runs if r is not run], before)
        measured = run.requests_per_s or 1.0
        shipped, left_out = (predict(run, c) / measured - 1 for c in (before, blind))
        print(
            f"{run.row_id:22} measured {measured:7.2f} req/s, shipped constants {shipped:+.0%}, "
            f"left out {left_out:+.0%}"
        )
    after = fit(runs, before)
    print({field: getattr(after.engines[ENGINE], field) for field in _FIELDS})
    if arguments.write:
        file = SHIPPED / "constants.json"
        file.write_text(after.model_dump_json(indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
