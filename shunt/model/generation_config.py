"""What a model's card says of sampling: its `generation_config.json`, as vLLM's server reads it."""

# Transformers types its configurations loosely.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from pathlib import Path
from typing import Any

FILE = "generation_config.json"
_TAKEN = (
    *("repetition_penalty", "presence_penalty", "frequency_penalty"),
    *("temperature", "top_k", "top_p", "min_p", "max_new_tokens"),
)
"""Those of vLLM 0.32's `ModelConfig.get_diff_sampling_param`. `do_sample` is not read there."""


def sampling_defaults(path: str) -> dict[str, Any]:
    """Sampling parameters under vLLM's names; empty where the model at `path`, a directory or a
    model in the hub's cache, says nothing. Of a model without the file, what `config.json` says.
    """
    # Heavy: transformers takes half a second that a command without prompts does not need.
    from transformers import AutoConfig, GenerationConfig

    try:
        if Path(path).is_dir() and not (Path(path) / FILE).is_file():
            raise OSError(FILE)
        found = GenerationConfig.from_pretrained(path, local_files_only=True)
    except OSError:
        try:
            found = GenerationConfig.from_model_config(
                AutoConfig.from_pretrained(path, local_files_only=True)
            )
        except (OSError, ValueError):
            return {}
    given = found.to_diff_dict()
    taken = {name: given[name] for name in _TAKEN if given.get(name) is not None}
    if "max_new_tokens" in taken:
        taken["max_tokens"] = taken.pop("max_new_tokens")
    return taken
