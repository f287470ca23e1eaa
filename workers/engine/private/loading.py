"""Private names in a rank's process: how vLLM makes a model and loads its weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from vllm.distributed.parallel_state import get_pp_group, get_tp_group
from vllm.model_executor.layers import utils as layer_utils
from vllm.model_executor.layers.linear import UnquantizedLinearMethod
from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod
from vllm.model_executor.model_loader import register_model_loader
from vllm.model_executor.model_loader.base_loader import BaseModelLoader
from vllm.model_executor.model_loader.default_loader import DefaultModelLoader
from vllm.model_executor.model_loader.utils import (
    initialize_model,
    process_weights_after_loading,
)
from vllm.utils.torch_utils import set_default_torch_dtype

__all__ = [
    "BaseModelLoader",
    "DefaultModelLoader",
    "get_pp_group",
    "get_tp_group",
    "initialize_model",
    "process_weights_after_loading",
    "register_model_loader",
    "set_default_torch_dtype",
]
"""vLLM's own, which the loader builds on."""


def stays_as_loaded(module: Any) -> bool:
    """Whether vLLM only reads the module's parameters, once `unpacked_on_cpu` was in force."""
    method = getattr(module, "quant_method", None)
    return method is None or type(method) in (UnquantizedLinearMethod, UnquantizedEmbeddingMethod)


@contextmanager
def unpacked_on_cpu() -> Iterator[None]:
    """Linear layers that are post-processed inside compute on the weights as they are.

    vLLM's CPU back end else makes a packed copy of each and drops the original: nothing would be
    left to share.
    """

    def plain(layer: Any, remove_weight: bool) -> None:
        del remove_weight
        layer.cpu_linear = torch.nn.functional.linear

    with patch.object(layer_utils, "dispatch_cpu_unquantized_gemm", plain):
        yield
