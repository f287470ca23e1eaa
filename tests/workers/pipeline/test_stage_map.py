"""Ranks, stages and nodes; and the bad plans that are refused before anything starts."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shunt.plan.plan import Pipeline, Stage
from workers.pipeline.checks import (
    ModelSizes,
    PipelineRefused,
    check_gpus,
    check_memory,
    check_stages,
    kv_mismatch,
)
from workers.pipeline.launch import stage_map
from workers.pipeline.stage_map import LOOPBACK, StageMap

MODEL = ModelSizes(num_layers=8, num_heads=8, num_kv_heads=4, widths=(("feed_forward", 12),))
GPTQ = {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128}}
STAGES = StageMap(
    tp=(2, 1, 4), layers=(3, 1, 4), nodes=(0, 0, 1), addresses=("10.0.0.1", "10.0.0.2")
)


def test_a_plan_s_pipeline_becomes_ranks() -> None:
    pipeline = Pipeline(
        name="a",
        stages=(
            Stage(slot="x-0", tp=2, first_layer=0, end_layer=3),
            Stage(slot="x-0", tp=1, first_gpu=2, first_layer=3, end_layer=4),
            Stage(slot="y-0", tp=4, first_layer=4, end_layer=8),
        ),
        max_num_seqs=4,
        predicted_requests_per_s=1.0,
    )
    stages = StageMap.of_pipeline(pipeline, {"x-0": "10.0.0.1", "y-0": "10.0.0.2"})
    assert stages == replace(STAGES, first_gpus=(0, 2, 0))
    assert [stages.locate(rank) for rank in range(7)] == [
        (0, 0), (0, 1), (1, 0), (2, 0), (2, 1), (2, 2), (2, 3),
    ]  # fmt: skip
    assert stages.leaders == [0, 2, 3]
    assert stages.local_ranks() == [0, 1, 2]
    assert replace(stages, node=1).local_ranks() == [3, 4, 5, 6]
    assert stages.local_gpus() == [0, 1, 2]
    assert replace(stages, node=1).local_gpus() == [0, 1, 2, 3]
    behind = replace(stages, first_gpus=(4, 6, 0))
    assert behind.local_gpus() == [4, 5, 6]


def test_it_survives_the_way_through_additional_config() -> None:
    launch = replace(STAGES, token="0abcd", node=1, link_port=29600)
    assert StageMap.of_config(launch.as_additional_config()) == launch


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"layers": (3, 1, 3)}, "stage 2 ends at layer 7, but the model has 8"),
        ({"layers": (4, 0, 4)}, "stage 1 has TP 1 and 0 layers"),
        ({"tp": (2, 3, 4)}, "stage 1: TP 3 does not divide the 8 attention heads"),
        ({"tp": (2, 8, 4)}, "stage 1: TP 8 does not divide the feed_forward of 12"),
        ({"nodes": (0, 1, 0)}, "stage 2 is on node 0 after node 1"),
        ({"nodes": (1, 0, 0)}, "stage 0 is on node 1"),
        ({"addresses": ("10.0.0.1",)}, "2 nodes, but 1 addresses"),
        ({"addresses": ("10.0.0.1", "127.0.0.1")}, "stage 2 is on node 1, whose address"),
    ],
)
def test_a_bad_plan_is_refused_and_the_stage_named(change: dict[str, object], told: str) -> None:
    check_stages(STAGES, MODEL)
    with pytest.raises(PipelineRefused, match=told):
        check_stages(replace(STAGES, **change), MODEL)  # type: ignore[arg-type]


def test_kv_heads_must_divide_or_be_repeated() -> None:
    """As vLLM: TP 4 over 2 key-value heads gives each to two ranks; TP 3 over 2 cannot be."""
    two = replace(STAGES, tp=(4, 1, 1))
    check_stages(two, replace(MODEL, num_kv_heads=2))
    three = replace(STAGES, tp=(3, 1, 1))
    with pytest.raises(PipelineRefused, match="stage 0: TP 3 neither"):
        check_stages(three, ModelSizes(num_layers=8, num_heads=6, num_kv_heads=2))


def test_slots_of_one_machine_may_all_be_loopback() -> None:
    check_stages(replace(STAGES, addresses=("127.0.0.1", "127.0.0.1")), MODEL)


def test_two_stages_on_one_gpu_are_refused() -> None:
    check_gpus(replace(STAGES, first_gpus=(0, 2, 0)), num_gpus=3)
    with pytest.raises(PipelineRefused, match="stage 1 wants GPU 1 of node 0, which stage 0 has"):
        check_gpus(replace(STAGES, first_gpus=(0, 1, 0)), num_gpus=3)


def test_a_gpu_that_the_node_has_not_is_refused() -> None:
    """Each node counts its own."""
    stages = replace(STAGES, first_gpus=(0, 2, 0))
    with pytest.raises(PipelineRefused, match="stage 1 wants GPU 2, but node 0 has 2 GPUs"):
        check_gpus(stages, num_gpus=2)
    with pytest.raises(PipelineRefused, match="stage 2 wants GPU 3, but node 1 has 3 GPUs"):
        check_gpus(replace(stages, node=1), num_gpus=3)


def test_slots_of_one_machine_have_gpus_of_their_own(tmp_path: Path) -> None:
    """A plan counts each slot's GPUs from 0."""
    _write_config(tmp_path)
    pipeline = Pipeline(
        name="a",
        stages=(
            Stage(slot="x-0", tp=2, first_layer=0, end_layer=3),
            Stage(slot="y-0", tp=1, first_gpu=1, first_layer=3, end_layer=5),
            Stage(slot="y-0", tp=1, first_layer=5, end_layer=8),
        ),
        max_num_seqs=4,
        predicted_requests_per_s=1.0,
    )
    one = stage_map(pipeline, dict.fromkeys(("x-0", "y-0"), LOOPBACK), model_path=str(tmp_path))
    assert one.first_gpus == (0, 3, 2)
    check_gpus(one, num_gpus=4)
    two = stage_map(pipeline, {"x-0": "10.0.0.1", "y-0": "10.0.0.2"}, model_path=str(tmp_path))
    assert two.first_gpus == (0, 1, 0)


@pytest.mark.parametrize(
    ("fields", "tp", "told"),
    [
        ({"vocab_size": 151_936}, 3, "stage 0: TP 3 does not divide the vocabulary of 151936"),
        ({"vocab_size": 128_256}, 3, None),
        ({"intermediate_size": 100}, 8, "stage 0: TP 8 does not divide the intermediate_size"),
        ({"moe_intermediate_size": 20}, 8, "stage 0: TP 8 does not divide the moe_intermediate"),
        ({"moe_intermediate_size": 24, "intermediate_size": 100}, 8, None),
        ({"intermediate_size": 192} | GPTQ, 2, "stage 0: TP 2 splits the intermediate_size of 192"),
        ({"intermediate_size": 256} | GPTQ, 2, None),
        ({"num_key_value_heads": 8}, 3, "stage 0: TP 3 neither divides nor repeats the 8 key"),
        ({"text_config": {"num_hidden_layers": 9}}, 1, "does not say 'num_attention_heads'"),
        ({"num_hidden_layers": 9}, 1, "stage 0 ends at layer 8, but the model has 9"),
    ],
)
def test_a_tp_degree_that_the_model_cannot_have_is_refused(
    tmp_path: Path, fields: dict[str, Any], tp: int, told: str | None
) -> None:
    _write_config(tmp_path, **fields)
    pipeline = Pipeline(
        name="a",
        stages=(Stage(slot="x-0", tp=tp, first_layer=0, end_layer=8),),
        max_num_seqs=4,
        predicted_requests_per_s=1.0,
    )
    if told is None:
        assert stage_map(pipeline, {}, model_path=str(tmp_path)).tp == (tp,)
        return
    with pytest.raises(PipelineRefused, match=told):
        stage_map(pipeline, {}, model_path=str(tmp_path))


def test_older_names_of_the_sizes_are_known(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"n_layer": 3, "n_head": 4, "n_inner": None}))
    assert ModelSizes.of_model(str(tmp_path)) == ModelSizes(3, 4, 4)


def test_an_unknown_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PipelineRefused, match=r"none/config\.json cannot be read"):
        ModelSizes.of_model(str(tmp_path / "none"))


def _write_config(path: Path, **fields: Any) -> None:
    sizes = {"num_hidden_layers": 8, "num_attention_heads": 24}
    (path / "config.json").write_text(json.dumps(sizes | fields))


def test_a_stage_without_memory_is_refused() -> None:
    free = {0: 100, 1: 100, 2: 100}
    check_memory(STAGES, free_bytes=free, weights_bytes=(150, 90, 300))
    with pytest.raises(PipelineRefused, match="stage 1 has no memory left"):
        check_memory(STAGES, free_bytes=free, weights_bytes=(150, 100, 300))
    with pytest.raises(PipelineRefused, match="stage 0 has no memory left"):
        check_memory(STAGES, free_bytes=free, weights_bytes=(150, 90, 300), cache_bytes=(50, 1, 1))


def test_another_cache_than_planned_is_reported() -> None:
    assert kv_mismatch(1000, 960) is None
    assert kv_mismatch(0, 5) is None
    for actual in (900, 1100):
        told = kv_mismatch(1000, actual)
        assert told is not None
        assert str(actual) in told
