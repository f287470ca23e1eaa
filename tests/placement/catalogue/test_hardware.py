"""The catalogue: complete, extensible, and strict about what a row must have."""

from pathlib import Path

import pytest

from placement.catalogue.hardware import Catalogue, load_catalogue
from placement.catalogue.model_shape import WeightFormat
from placement.errors import BadInput


def test_every_row_names_its_source(catalogue: Catalogue) -> None:
    assert all(gpu.source for gpu in catalogue.gpus.values())
    assert all(instance.source for instance in catalogue.instances.values())
    assert len(catalogue.instances) == 60


def test_cards_without_fp8_expand_to_16_bits(catalogue: Catalogue) -> None:
    a10g, l40s = catalogue.gpu("a10g"), catalogue.gpu("L40S")
    assert a10g.peak_flops(WeightFormat.FP8) == a10g.fp16_flops
    assert l40s.peak_flops(WeightFormat.FP8) == 733e12
    assert l40s.peak_flops(WeightFormat.INT4) == l40s.fp16_flops


def test_unknown_names_say_what_exists(catalogue: Catalogue) -> None:
    with pytest.raises(BadInput, match="L40S"):
        catalogue.gpu("L50")
    with pytest.raises(BadInput, match=r"g6\.12xlarge"):
        catalogue.instance("g6.13xlarge")


def test_a_user_adds_a_card_and_a_node(tmp_path: Path) -> None:
    gpus, nodes = tmp_path / "gpus.csv", tmp_path / "nodes.csv"
    gpus.write_text(
        "gpu,memory_gb,bandwidth_gb_per_s,fp16_tflops,link,link_gb_per_s\nMine,10,100,5,pcie4,32\n"
    )
    nodes.write_text(
        "instance_type,gpu,gpu_count,network_mbps,ondemand_usd_per_hour\nmine.2,mine,2,1000,1.5\n"
    )
    found = load_catalogue([gpus], [nodes]).instance("mine.2")
    assert (found.gpu.name, found.gpu_count, found.ondemand_usd_per_hour) == ("Mine", 2, 1.5)
    nodes.write_text("instance_type,gpu,gpu_count,network_mbps\nmine.2,mine,-2,1000\n")
    with pytest.raises(BadInput, match="line 2: gpu_count must be above zero"):
        load_catalogue([gpus], [nodes])
