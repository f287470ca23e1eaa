"""Lets vLLM believe in a Triton back end for CPU: the kernels run in Triton's interpreter."""

import os

if os.environ.get("TRITON_INTERPRET") == "1":
    import triton.backends

    class _Driver:
        @staticmethod
        def is_active() -> bool:
            return True

    class _Backend:
        driver = _Driver
        compiler = None

    triton.backends.backends.clear()
    triton.backends.backends["cpu"] = _Backend  # type: ignore[assignment]  # a stand-in
