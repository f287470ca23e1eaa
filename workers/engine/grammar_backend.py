"""Structured-output backends that the installed versions cannot load."""

import importlib

_INTEGRATIONS = {"lm-format-enforcer": "lmformatenforcer.integrations.vllm"}
"""Modules that vLLM imports inside the engine core, at the first row with a grammar: a failure
there ends the core. lm-format-enforcer 0.11.3 asks vLLM 0.32 for a module that it no longer has."""


def problem_of(backend: str) -> str:
    """Why rows with `structured_outputs` must not reach an engine with this backend, or ""."""
    module = _INTEGRATIONS.get(backend)
    if module is None:
        return ""
    try:
        importlib.import_module(module)
    except ImportError:
        return (
            f"structured_outputs: the backend {backend} does not work with the installed vLLM; "
            "use xgrammar, guidance or outlines"
        )
    return ""
