"""The two kernels of runner V2 that Triton's interpreter cannot run, as PyTorch."""

from typing import Any

import torch
import vllm.v1.sample.ops.topk_topp_sampler as sampler
import vllm.v1.worker.gpu.structured_outputs as structured_outputs

from workers.engine.resume_worker import ResumeWorker

_BITS = torch.arange(32)


class _GrammarBitmask:
    def __getitem__(self, _grid: Any) -> "_GrammarBitmask":
        return self

    def __call__(
        self,
        logits: Any,
        _logits_stride: Any,
        index: Any,
        cumulative: Any,
        bitmask: Any,
        _bitmask_stride: Any,
        vocabulary_size: int,
        *,
        MASK_STRIDE: int,  # the kernel's own names
        **_block: Any,
    ) -> None:
        for number, place in enumerate(index.tolist()):
            row = int(cumulative[place // MASK_STRIDE]) + place % MASK_STRIDE
            allowed = ((bitmask[number][:, None] >> _BITS) & 1).bool().reshape(-1)
            logits[row].masked_fill_(~allowed[:vocabulary_size], float("-inf"))


class InterpretedWorker(ResumeWorker):
    """`worker_extension_cls`: importing it puts the stand-ins in place."""


def _top_k_top_p(logits: Any, k: Any, p: Any) -> Any:
    return sampler.apply_top_k_top_p_pytorch(logits, k, p)


setattr(sampler, "apply_top_k_top_p_triton", _top_k_top_p)  # noqa: B010  # imported there from Triton
setattr(structured_outputs, "_apply_grammar_bitmask_kernel", _GrammarBitmask())  # noqa: B010
