"""What vLLM refuses of a request, from the model's configuration and tokenizer alone.

The rules are those of `SamplingParams.verify`, `update_from_tokenizer` and the input processor of
vLLM 0.32; `tests/workers/test_like_vllm.py` compares. What depends on the engine's device is left
to `workers.engine.resume_plan`.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shunt.job.job import Job
from shunt.job.sampling import Sampling
from shunt.structure.backend import reasons_first

MAX_LOGPROBS = 20
"""vLLM's `max_logprobs`, where `model.engine.extra` names no other; -1: as many as there are."""
MAX_BAD_WORDS = 128
"""vLLM's `VLLM_MAX_NUM_BAD_WORDS`: bad words as token sequences, with and without a space."""


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """Of one model and engine. `None`: not known, and not looked at."""

    vocab_size: int | None = None
    """`vocab_size` of the model's config.json. vLLM also lets prompts have ids above it that the
    tokenizer knows; the model has no embedding of them."""
    max_logprobs: int | None = None
    thinks: bool = True
    """Whether the engine has a reasoning parser."""
    speculates: bool = False
    encode: Callable[[str], Sequence[int]] | None = None
    """Text to token ids, without special tokens around it."""

    def refused_ids(self, token_ids: Sequence[int]) -> str:
        """Why the engine would not take the prompt, or empty."""
        if self.vocab_size is None or max(token_ids) < self.vocab_size:
            return ""
        return f"token_ids: {max(token_ids)} is outside the vocabulary of {self.vocab_size} tokens"

    def refused(self, sampling: Sampling) -> str:
        """The first parameter that the engine would not take, and why; or empty."""
        return next(self._refused(sampling), "")

    def _refused(self, sampling: Sampling) -> Iterator[str]:
        yield from self._counts(sampling)
        yield from self._ids(sampling)
        if "" in _texts(sampling.stop):
            yield "stop: has an empty text"
        if sampling.bad_words and (why := self._bad_words(sampling.bad_words)):
            yield f"bad_words: {why}"
        if sampling.thinking_token_budget is not None and not self.thinks:
            yield (
                "thinking_token_budget: needs a reasoning parser; set "
                "model.engine.extra.reasoning_parser"
            )
        if self.speculates and (sampling.min_p > 0 or sampling.logit_bias):
            yield "min_p and logit_bias: are not supported with speculative decoding"

    def _counts(self, sampling: Sampling) -> Iterator[str]:
        limit = self.max_logprobs
        limit = self.vocab_size if limit == -1 else limit
        for name in ("logprobs", "prompt_logprobs"):
            wanted = getattr(sampling, name)
            if limit is not None and wanted is not None and wanted > limit:
                yield (
                    f"{name}: {wanted} are more than the engine gives, which is {limit}; set "
                    f"model.engine.extra.max_logprobs"
                )
        ids = sampling.logprob_token_ids
        if ids is not None and sampling.logprobs is not None and sampling.logprobs != len(ids):
            yield (
                f"logprobs: must be {len(ids)}, the number of logprob_token_ids, where both are "
                "given"
            )

    def _ids(self, sampling: Sampling) -> Iterator[str]:
        if sampling.allowed_token_ids is not None and not sampling.allowed_token_ids:
            yield "allowed_token_ids: is empty"
        if self.vocab_size is None:
            return
        for name in ("logprob_token_ids", "stop_token_ids", "logit_bias", "allowed_token_ids"):
            for token_id in getattr(sampling, name) or ():
                if not 0 <= token_id < self.vocab_size:
                    yield (
                        f"{name}: {token_id} is outside the vocabulary of {self.vocab_size} tokens"
                    )
                    break

    def _bad_words(self, words: Sequence[str]) -> str:
        if "" in words:
            return "has an empty text"
        if self.encode is None:
            return ""
        count = 0
        for word in dict.fromkeys(words):
            bare, spaced = (list(self.encode(space + word.lstrip())) for space in ("", " "))
            if not bare:
                return f"{word!r} has no token"
            count += 1 + bool(spaced and spaced[0] != bare[0] and len(spaced) == len(bare))
        if count > MAX_BAD_WORDS:
            return f"are {count} sequences of tokens; the engine takes {MAX_BAD_WORDS}"
        return ""


UNKNOWN = EngineLimits()
"""Of the fake engine: it takes everything."""


def _texts(stop: str | list[str] | None) -> list[str]:
    return [stop] if isinstance(stop, str) else stop or []


def engine_limits(job: Job, encode: Callable[[str], Sequence[int]]) -> EngineLimits:
    """Those of the job's model, which lies in a directory, and engine."""
    extra = job.model.engine.extra
    given = extra.get("max_logprobs")
    return EngineLimits(
        vocab_size=_vocab_size(Path(job.model.path) / "config.json"),
        max_logprobs=given if isinstance(given, int) else MAX_LOGPROBS,
        thinks=reasons_first(job) or bool(extra.get("reasoning_config")),
        speculates=bool(extra.get("speculative_config")),
        encode=encode,
    )


def _vocab_size(path: Path) -> int | None:
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    found = of_text_model(config, "vocab_size")
    return found if isinstance(found, int) else None


def of_text_model(config: Mapping[str, Any], name: str) -> Any:
    """A value of a config.json; models of several kinds of input keep it under `text_config`."""
    return config.get(name, config.get("text_config", {}).get(name))
