"""The shape of a model: what one layer weighs, computes and keeps in the KV cache."""

from dataclasses import dataclass
from enum import StrEnum


class WeightFormat(StrEnum):
    """How the linear layers are stored."""

    BF16 = "bf16"
    FP8 = "fp8"
    INT8 = "int8"
    INT4 = "int4"
    FP4 = "fp4"


# Bytes per weight, with the scales of the usual group sizes: AWQ and GPTQ keep one fp16 scale and
# one 4-bit zero point per 128 weights (0.5 + 2/128 + 0.5/128); NVFP4 one fp8 scale per 16 weights.
WEIGHT_BYTES: dict[WeightFormat, float] = {
    WeightFormat.BF16: 2.0,
    WeightFormat.FP8: 1.0,
    WeightFormat.INT8: 1.0,
    WeightFormat.INT4: 0.5 + 2.5 / 128,
    WeightFormat.FP4: 0.5 + 1 / 16,
}

BYTES_16_BIT = 2.0


@dataclass(frozen=True, slots=True)
class LatentAttention:
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1): one shared latent
    of `kv_rank + rope_dim` numbers per token and layer instead of keys and values per head."""

    kv_rank: int
    rope_dim: int
    nope_dim: int
    value_dim: int
    query_rank: int | None

    @property
    def cached(self) -> int:
        """Numbers in the cache per token and layer, the same on every tensor-parallel rank."""
        return self.kv_rank + self.rope_dim


@dataclass(frozen=True, slots=True)
class Experts:
    """Mixture of experts in `num_layers` of the model's layers; the others are dense."""

    count: int
    per_token: int
    intermediate: int
    shared_intermediate: int
    num_layers: int

    def touched(self, num_tokens: float) -> float:
        """Expected distinct experts that a batch reads: E (1 - (1 - k/E)^b), routing uniform."""
        return self.count * (1.0 - (1.0 - self.per_token / self.count) ** num_tokens)


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What the planner knows of a model. Sizes are counts of numbers, not bytes."""

    name: str
    num_layers: int
    hidden: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate: int
    mlp_matrices: int
    vocab: int
    tied_embeddings: bool
    max_position: int
    weight_format: WeightFormat
    kv_bytes_per_number: float
    latent: LatentAttention | None = None
    experts: Experts | None = None
    window: int | None = None
    window_layers: int = 0

    @property
    def query_size(self) -> int:
        return self.num_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        return self.num_kv_heads * self.head_dim

    @property
    def weight_bytes_per_number(self) -> float:
        return WEIGHT_BYTES[self.weight_format]

    @property
    def attention_weights(self) -> float:
        """Numbers in the projections of one layer."""
        if self.latent is None:
            return self.hidden * (2 * self.query_size + 2 * self.kv_size)
        latent = self.latent
        query_out = self.num_heads * (latent.nope_dim + latent.rope_dim)
        rank = latent.query_rank
        query = self.hidden * query_out if rank is None else rank * (self.hidden + query_out)
        down = self.hidden * latent.cached
        up = latent.kv_rank * self.num_heads * (latent.nope_dim + latent.value_dim)
        return query + down + up + self.num_heads * latent.value_dim * self.hidden

    @property
    def _expert_share(self) -> float:
        return self.experts.num_layers / self.num_layers if self.experts else 0.0

    @property
    def _dense_mlp_weights(self) -> float:
        return self.mlp_matrices * self.hidden * self.intermediate

    @property
    def layer_weights(self) -> float:
        """Numbers in one layer, the mean over dense and expert layers."""
        return self.attention_weights + self._mlp_weights(
            self.experts.count if self.experts else 0.0
        )

    @property
    def active_layer_weights(self) -> float:
        """Numbers of one layer that one token is multiplied with."""
        return self.attention_weights + self._mlp_weights(
            self.experts.per_token if self.experts else 0.0
        )

    def touched_layer_weights(self, num_tokens: float) -> float:
        """Numbers of one layer that a batch of tokens reads from memory."""
        return self.attention_weights + self._mlp_weights(
            self.experts.touched(num_tokens) if self.experts else 0.0
        )

    def _mlp_weights(self, num_experts: float) -> float:
        if self.experts is None:
            return self._dense_mlp_weights
        routed = self.mlp_matrices * self.hidden * self.experts.intermediate * num_experts
        shared = self.mlp_matrices * self.hidden * self.experts.shared_intermediate
        router = self.hidden * self.experts.count
        share = self._expert_share
        return share * (routed + shared + router) + (1.0 - share) * self._dense_mlp_weights

    @property
    def layer_bytes(self) -> float:
        """Bytes of one layer over all its tensor-parallel ranks."""
        return self.layer_weights * self.weight_bytes_per_number

    @property
    def embedding_bytes(self) -> float:
        """Bytes of the token embedding, or of the head: both stay in 16 bits when quantised."""
        return self.vocab * self.hidden * BYTES_16_BIT

    @property
    def total_weights(self) -> float:
        """Parameters of the whole model, without norms and biases."""
        ends = 1 if self.tied_embeddings else 2
        return self.num_layers * self.layer_weights + ends * self.vocab * self.hidden

    @property
    def total_bytes(self) -> float:
        ends = 1 if self.tied_embeddings else 2
        return self.num_layers * self.layer_bytes + ends * self.embedding_bytes

    def kv_bytes(self, tp: int) -> float:
        """Bytes of KV cache per token and layer on one rank of a stage with this TP degree.

        Heads are split until each rank holds one, then replicated; a latent is never split.
        """
        if self.latent is not None:
            return self.latent.cached * self.kv_bytes_per_number
        heads = max(1.0, self.num_kv_heads / tp)
        return 2.0 * heads * self.head_dim * self.kv_bytes_per_number

    def attended(self, context: float) -> float:
        """Mean tokens that a layer attends to at this context: sliding windows forget."""
        if self.window is None or self.window_layers == 0:
            return context
        share = self.window_layers / self.num_layers
        return share * min(context, float(self.window)) + (1.0 - share) * context

    @property
    def decode_attention_flops(self) -> float:
        """Flops per layer, generated token and attended token (scores and values, 2 each)."""
        if self.latent is None:
            return 4.0 * self.query_size
        return 2.0 * self.num_heads * (2 * self.latent.kv_rank + self.latent.rope_dim)

    @property
    def prefill_attention_flops(self) -> float:
        """Flops per layer and pair of tokens, before causality halves the pairs."""
        if self.latent is None:
            return 4.0 * self.query_size
        latent = self.latent
        return 2.0 * self.num_heads * (latent.nope_dim + latent.rope_dim + latent.value_dim)

    def splits(self, tp: int) -> bool:
        """Whether vLLM can split the model over this TP degree: heads and KV heads divide evenly,
        or KV heads are replicated evenly."""
        if self.num_heads % tp or self.vocab < tp:
            return False
        if self.latent is not None:
            return True
        return self.num_kv_heads % tp == 0 or tp % self.num_kv_heads == 0
