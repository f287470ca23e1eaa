"""What preflight refuses of parameters is what vLLM refuses, and the model's own sampling defaults
are those that vLLM's server takes."""

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from shunt.dataset.engine_limits import EngineLimits
from shunt.dataset.rendering import HuggingFaceTokenizer, renderer_of
from shunt.job.job import Job
from shunt.job.model_defaults import with_model_defaults
from shunt.job.sampling import Sampling
from shunt.model.generation_config import sampling_defaults

pytestmark = pytest.mark.vllm

MODEL = Path(__file__).parents[2] / ".cache" / "models" / "SmolLM2-135M-Instruct"
VOCABULARY = 49152
PARAMETERS: list[dict[str, Any]] = [
    {"logprobs": 20}, {"logprobs": 21}, {"prompt_logprobs": 20}, {"prompt_logprobs": 21},
    {"logprob_token_ids": [0, VOCABULARY - 1]}, {"logprob_token_ids": [VOCABULARY]},
    {"logprob_token_ids": [-1]}, {"logprob_token_ids": [1, 2], "logprobs": 2},
    {"logprob_token_ids": [1, 2], "logprobs": 1}, {"logprob_token_ids": []},
    {"stop_token_ids": [VOCABULARY - 1]}, {"stop_token_ids": [VOCABULARY]},
    {"stop_token_ids": [-1]}, {"logit_bias": {str(VOCABULARY): 1.0}}, {"logit_bias": {"5": 1.0}},
    {"logit_bias": {}}, {"allowed_token_ids": []}, {"allowed_token_ids": [VOCABULARY]},
    {"allowed_token_ids": [3]}, {"stop": ""}, {"stop": ["a", ""]}, {"stop": []}, {"stop": "a"},
    {"bad_words": [""]}, {"bad_words": ["Paris"]}, {"bad_words": [" "]}, {"bad_words": []},
    {"bad_words": [f"word{n}" for n in range(60)]}, {"bad_words": [f"w{n}" for n in range(129)]},
    {"bad_words": ["the"] * 500}, {"bad_words": [f"{n} x" for n in range(70)]},
    {"repetition_penalty": 3.0}, {"thinking_token_budget": 5}, {"min_p": 0.1},
]  # fmt: skip


@pytest.fixture(scope="module")
def limits() -> EngineLimits:
    job = Job.model_validate({"name": "t", "model": {"path": str(MODEL)}, "input": {"path": "x"}})
    return renderer_of(job, clock=None).limits  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("given", PARAMETERS, ids=lambda given: str(given)[:60])
def test_a_parameter_is_refused_where_vllm_refuses_it(
    limits: EngineLimits, given: dict[str, Any]
) -> None:
    sampling = Sampling.model_validate(given)
    assert bool(limits.refused(sampling)) == _vllm_refuses(sampling), limits.refused(sampling)


def test_token_ids_of_a_prompt_are_of_the_vocabulary(limits: EngineLimits) -> None:
    assert limits.refused_ids([0, VOCABULARY - 1]) == ""
    assert limits.refused_ids([999_999]) == (
        "token_ids: 999999 is outside the vocabulary of 49152 tokens"
    )


CARDS: list[dict[str, Any]] = [
    {"do_sample": True, "temperature": 0.6, "top_p": 0.95, "top_k": 20, "min_p": 0.0},
    {"repetition_penalty": 1.05, "max_new_tokens": 2048, "eos_token_id": [1, 2]},
    {"temperature": 1.0, "top_p": 1.0, "top_k": 50}, {"bos_token_id": 1}, {},
]  # fmt: skip


@pytest.mark.parametrize("card", [*CARDS, None], ids=str)
def test_the_models_defaults_are_those_of_vllms_server(
    tmp_path: Path, card: dict[str, Any] | None
) -> None:
    from vllm.config import ModelConfig

    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(MODEL / name, tmp_path)
    if card is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps(card))
    theirs = ModelConfig(model=str(tmp_path)).get_diff_sampling_param()
    assert sampling_defaults(str(tmp_path)) == theirs


@pytest.mark.parametrize("card", CARDS, ids=str)
@pytest.mark.parametrize("own", [{}, {"temperature": 0.2}, {"top_p": 0.5, "max_tokens": 9}])
def test_a_request_over_them_is_that_of_vllms_server(
    card: dict[str, Any], own: dict[str, Any]
) -> None:
    """But for greedy sampling and 256 tokens, which are ours where nobody says anything."""
    from vllm.entrypoints.openai.completion.protocol import CompletionRequest

    from workers.engine.params import sampling_params

    taken = {
        n: v for n, v in card.items() if n not in ("do_sample", "eos_token_id", "bos_token_id")
    }
    if "max_new_tokens" in taken:
        taken["max_tokens"] = taken.pop("max_new_tokens")
    job = {"name": "t", "model": {"path": "m"}, "input": {"path": "x"}, "sampling": own}
    ours = sampling_params(with_model_defaults(Job.model_validate(job), taken).sampling)
    request = CompletionRequest.model_validate({"prompt": "x", "model": "m", **own})
    limit = own.get("max_tokens", taken.get("max_tokens", 256))
    theirs = request.to_sampling_params(limit, {"temperature": 0.0, **taken})
    for name in ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_tokens"):
        assert getattr(ours, name) == getattr(theirs, name), name


@cache
def _vllm_model() -> tuple[Any, Any]:
    """vLLM's configuration and tokenizer."""
    from vllm.config import ModelConfig
    from vllm.tokenizers import get_tokenizer

    return ModelConfig(model=str(MODEL)), get_tokenizer(str(MODEL))


def _vllm_refuses(sampling: Sampling) -> bool:
    """As `InputProcessor` asks, in its order."""
    from vllm.exceptions import VLLMValidationError

    from workers.engine.params import sampling_params

    config, tokenizer = _vllm_model()
    try:
        params = sampling_params(sampling)
        params.verify(config, None, None, tokenizer)
        params.update_from_tokenizer(tokenizer)
    except (ValueError, VLLMValidationError):
        return True
    return sampling.thinking_token_budget is not None  # refused where there is no reasoning parser


def test_the_bos_of_a_model_is_known() -> None:
    assert HuggingFaceTokenizer(str(MODEL)).begins_with == ""  # SmolLM2 puts none
