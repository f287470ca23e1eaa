"""Parameters of OpenAI's bodies that ask for nothing, and values with which they do.

docs/jobs.md has the table; a parameter that is neither here nor translated is refused by name.
"""

from collections.abc import Callable, Mapping
from typing import Any

_TIERS = ("auto", "default", "flex", "scale", "priority")


def _anything(_value: Any) -> bool:
    return True


def _one_of(*values: Any) -> Callable[[Any], bool]:
    # `1 == True` in Python: JSON tells them apart.
    return lambda value: any(value == v and type(value) is type(v) for v in (None, *values))


_OF_BOTH: Mapping[str, Callable[[Any], bool]] = {
    "model": _anything,  # one job serves one model; the output names it
    "user": _anything,
    "metadata": _anything,
    "safety_identifier": _anything,
    "prompt_cache_key": _anything,  # prefixes are cached whatever it says
    "prompt_cache_retention": _anything,
    "service_tier": _one_of(*_TIERS),
    "store": _one_of(False),
    "stream": _one_of(False),
    "stream_options": _one_of(),
    "echo": _one_of(False),
    "use_beam_search": _one_of(False),
    "length_penalty": _one_of(1, 1.0),
    "truncate_prompt_tokens": _one_of(),
    "priority": _one_of(0),
}
_OF_CHATS: Mapping[str, Callable[[Any], bool]] = {
    "modalities": _one_of(["text"]),
    "audio": _one_of(),
    "prediction": _anything,  # a hint for speed
    "verbosity": _one_of("medium"),  # OpenAI's default
    "web_search_options": _one_of(),
    "functions": _one_of(),
    "function_call": _one_of("none"),
    "add_generation_prompt": _one_of(True),
    "continue_final_message": _one_of(False),
    "add_special_tokens": _one_of(False),
    "include_reasoning": _one_of(True),
}
_OF_COMPLETIONS: Mapping[str, Callable[[Any], bool]] = {
    "best_of": _one_of(1),
    "suffix": _one_of(""),
    "add_special_tokens": _one_of(True),
}


def asks_for_nothing(name: str, value: Any, *, chat: bool) -> bool:
    """Whether leaving the parameter away changes nothing."""
    known = {**_OF_BOTH, **(_OF_CHATS if chat else _OF_COMPLETIONS)}
    return name in known and known[name](value)
