"""Shapes of well-known models, shipped so that they can be named without their checkpoints."""

from dataclasses import replace
from pathlib import Path

from placement.catalogue.model_config import read_model_shape
from placement.catalogue.model_shape import ModelShape, WeightFormat
from placement.errors import BadInput

_SHIPPED = Path(__file__).parent / "models"

_FORMATS = {
    "": None,
    "fp16": WeightFormat.BF16,
    "bf16": WeightFormat.BF16,
    "fp16/bf16": WeightFormat.BF16,
    "fp8": WeightFormat.FP8,
    "int8": WeightFormat.INT8,
    "int4": WeightFormat.INT4,
    "awq": WeightFormat.INT4,
    "gptq": WeightFormat.INT4,
    "fp4": WeightFormat.FP4,
}


def known_models() -> list[str]:
    """Names that `known_shape` takes."""
    return sorted(file.stem for file in _SHIPPED.glob("*.json"))


def known_shape(name: str, weight_dtype: str = "") -> ModelShape:
    """The shape of a shipped model, with its weights in the format given. Raises `BadInput`."""
    names = {known.lower(): known for known in known_models()}
    stem = names.get(name.split("/")[-1].lower())
    if stem is None:
        raise BadInput(
            f"unknown model {name!r}: give the path of its config.json, or one of "
            f"{', '.join(known_models())}"
        )
    if weight_dtype.lower() not in _FORMATS:
        raise BadInput(f"weight format {weight_dtype!r}: write one of {', '.join(_FORMATS)}")
    shape = read_model_shape(_SHIPPED / f"{stem}.json")
    wanted = _FORMATS[weight_dtype.lower()]
    return shape if wanted is None else replace(shape, weight_format=wanted)
