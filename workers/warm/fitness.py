"""When a process may be forked, and for whom: what a fork cannot make good."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

IMPORT_TIME = (
    "LD_", "PYTHON", "OMP_", "GOMP_", "KMP_", "MKL_", "MALLOC_", "TORCH", "PYTORCH_", "TRITON_",
    "HF_", "TRANSFORMERS_", "VLLM_LOGGING_", "VLLM_CONFIGURE_LOGGING", "VLLM_PLUGINS",
    "VLLM_TARGET_DEVICE", "VLLM_USE_V2_MODEL_RUNNER",
)  # fmt: skip
"""Beginnings of variables that libraries read when they are loaded or imported."""
_NOT_DECIDED = ("PYTHONPATH", "PYTHONUNBUFFERED", "LD_LIBRARY_PATH")
"""Of these, the ones that a process which has imported everything no longer needs."""
_FORKED_IN_ORDER = ("jemalloc_bg_thd",)
"""pyarrow's allocator takes its locks around a fork, and starts its thread anew in the child."""
_CUDA_DEVICE = "/dev/nvidia-uvm"
"""Opened by cuInit, by NVML never."""


@dataclass(frozen=True, slots=True)
class ImportedWith:
    """The environment under which a warm process was started and imported everything."""

    asked: Mapping[str, str]
    """Of the process that started it: what another that asks for a child has, too."""
    now: Mapping[str, str]
    """Its own, after its imports: what an engine's front end has once its vLLM is configured."""

    @property
    def by_imports(self) -> dict[str, str]:
        """What the imports, and what vLLM does before it starts a process, have added."""
        return {name: value for name, value in self.now.items() if name not in self.asked}

    def difference(self, environ: Mapping[str, str]) -> str:
        """The first variable decided at an import that `environ` has otherwise; empty if none."""
        for name in sorted(self.now.keys() | self.asked.keys() | environ.keys()):
            if not name.startswith(IMPORT_TIME) or name in _NOT_DECIDED:
                continue
            wanted = environ.get(name)
            if wanted not in (self.asked.get(name), self.now.get(name)):
                return f"it was started with {name}={self.now.get(name)}, not with {wanted}"
        return ""


def unfit_for_fork(imported: ImportedWith, environ: Mapping[str, str]) -> str:
    """Why a process of that environment must not be forked from this one; empty when it may."""
    if different := imported.difference(environ):
        return different
    if threads := other_threads():
        return f"it has threads, whose locks a fork would keep for ever: {', '.join(threads)}"
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return "CUDA was touched in it"
    if _CUDA_DEVICE in open_files():
        return f"it has {_CUDA_DEVICE} open: CUDA was touched in it"
    return ""


def other_threads() -> list[str]:
    """Names of the threads besides the main one that a fork would cut off in the middle."""
    tasks = Path("/proc/self/task")
    others = (task for task in tasks.iterdir() if task.name != str(os.getpid()))
    names = [(task / "comm").read_text().strip() for task in others]
    return [name for name in names if name not in _FORKED_IN_ORDER]


def open_files() -> set[str]:
    """Paths that this process has open."""
    found: set[str] = set()
    for link in Path("/proc/self/fd").iterdir():
        try:
            found.add(os.readlink(link))
        except FileNotFoundError:  # the descriptor of the listing itself
            continue
    return found
