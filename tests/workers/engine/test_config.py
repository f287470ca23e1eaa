"""The engine's record as vLLM's arguments and environment."""

from workers.engine.config import EngineConfig, engine_arguments, engine_environment


def test_unset_sizes_are_left_to_vllm() -> None:
    arguments = engine_arguments(EngineConfig("/model"))
    assert arguments["model"] == "/model"
    assert "max_model_len" not in arguments
    assert "enable_lora" not in arguments


def test_adapters_turn_lora_on() -> None:
    arguments = engine_arguments(EngineConfig("/m", adapters={"a": "/a", "b": "/b"}))
    assert (arguments["enable_lora"], arguments["max_loras"]) == (True, 2)


def test_extra_arguments_win() -> None:
    assert engine_arguments(EngineConfig("/m", extra={"block_size": 64}))["block_size"] == 64


def test_the_environment_keeps_the_engine_off_the_network() -> None:
    environment = engine_environment(threads=1, kv_cache_gib=2)
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert environment["VLLM_NO_USAGE_STATS"] == "1"
    assert environment["OMP_NUM_THREADS"] == "1"
    assert environment["VLLM_CPU_KVCACHE_SPACE"] == "2"
