"""What the bits of a logit depend on, in one string that two engines can be compared by."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NumericsFingerprint:
    """Equal fingerprints: the same kernels on the same numbers.

    Equal bits after a move need batch invariance besides: a moved request is prefilled over tokens
    that were decoded one by one before, and only batch-invariant kernels give both the same bits.
    """

    engine: str
    """vLLM and torch versions."""
    dtype: str
    quantization: str
    device: str
    """GPU name, or `cpu`."""
    tensor_parallel: str
    """The degree, or that of each stage, as `2-1`."""
    pipeline_parallel: int
    runner: str
    """Model runner: `v1` or `v2`."""
    batch_invariant: bool

    def __str__(self) -> str:
        return "/".join(
            (
                self.engine,
                self.dtype,
                self.quantization,
                self.device.replace(" ", "-"),
                f"tp{self.tensor_parallel}",
                f"pp{self.pipeline_parallel}",
                self.runner,
                "batch-invariant" if self.batch_invariant else "batch-variant",
            )
        )
