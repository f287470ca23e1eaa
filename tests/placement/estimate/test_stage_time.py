"""Step times against arithmetic that can be done on paper."""

import pytest

from placement.catalogue.constants import EngineConstants, Rates
from placement.catalogue.model_config import shape_from_config
from placement.catalogue.model_shape import ModelShape
from placement.estimate.stage_time import StageRole, Step, step_time

# hidden 1000, 10 heads of 100, 10 KV heads, MLP 2000, vocabulary 5000: one layer has
# 4 x 1000^2 + 3 x 1000 x 2000 = 10^7 numbers, 2 x 10^7 bytes.
SHAPE: ModelShape = shape_from_config(
    {
        "num_hidden_layers": 10,
        "hidden_size": 1000,
        "num_attention_heads": 10,
        "intermediate_size": 2000,
        "vocab_size": 5000,
    },
    name="round",
)
RATES = Rates(
    prefill_flops=1e12,
    decode_flops=1e12,
    attention_flops=1e12,
    bandwidth=1e9,
    kv_bandwidth=1e9,
    link_bandwidth=1e9,
    link_latency_s=1e-3,
    overlap=50.0,
    host_scale=1.0,
)
FREE = EngineConstants(host_step_s=0, host_layer_s=0, host_sequence_s=0)
MIDDLE = StageRole(1, 1, first=False, last=False)


def test_decode_of_one_sequence_reads_the_weights() -> None:
    """2e7 bytes at 1e9 bytes/s = 20 ms; cache 100 tokens x 2 x 1000 x 2 bytes = 0.4 ms."""
    time = step_time(SHAPE, MIDDLE, Step(sequences=1, context=100), rates=RATES, engine=FREE)
    assert time.products == pytest.approx(0.020)
    assert time.cache == pytest.approx(0.0004)
    assert time.limit == "memory bandwidth"


def test_prefill_computes() -> None:
    """10,000 tokens x 2 x 1e7 flops = 2e11 flops at 1e12 = 200 ms; attention
    5e7 pairs x 4 x 1000 = 2e11 flops: another 200 ms."""
    step = Step(prompt_tokens=10_000, prompt_pairs=5e7, prompts=1)
    time = step_time(SHAPE, MIDDLE, step, rates=RATES, engine=FREE)
    assert time.products == pytest.approx(0.2)
    assert time.attention == pytest.approx(0.2)
    assert time.limit == "compute"


def test_all_reduce_by_hand() -> None:
    """TP 4, one layer: two all-reduces of 1000 tokens x 1000 x 2 bytes = 2e6 bytes; a ring moves
    2 x 3/4 of them: 3 ms each, plus 1 ms x log2(4) latency: 2 x (3 + 2) = 10 ms."""
    role = StageRole(1, 4, first=False, last=False)
    step = Step(prompt_tokens=1000, prompt_pairs=0, prompts=1)
    assert step_time(SHAPE, role, step, rates=RATES, engine=FREE).link == pytest.approx(0.010)


def test_host_time() -> None:
    """1 ms a step + 10 layers x 0.1 ms + 5 sequences x 0.2 ms = 3 ms."""
    engine = EngineConstants(host_step_s=1e-3, host_layer_s=1e-4, host_sequence_s=2e-4)
    role = StageRole(10, 1, first=False, last=False)
    time = step_time(SHAPE, role, Step(sequences=5, context=1), rates=RATES, engine=engine)
    assert time.host == pytest.approx(0.003)


def test_time_is_affine_in_layers() -> None:
    """The search relies on it: t(l) = t(0) + l (t(1) - t(0)) with head and embedding in place."""
    engine = EngineConstants(host_step_s=1e-3, host_layer_s=1e-4, host_sequence_s=2e-4)
    step = Step(prompt_tokens=50, prompt_pairs=99, prompts=2, sequences=7, context=31)
    t = [
        step_time(SHAPE, StageRole(n, 2), step, rates=RATES, engine=engine).total for n in (0, 1, 9)
    ]
    assert t[2] == pytest.approx(t[0] + 9 * (t[1] - t[0]))
