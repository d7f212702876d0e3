"""Sizes of a backbone, checked at construction."""

import dataclasses

import jax.numpy as jnp

KINDS = ("bert", "roberta")
ACTIVATIONS = ("gelu", "gelu_new", "relu")
DTYPES = ("float32", "bfloat16")
REMAT = ("none", "layer")


@dataclasses.dataclass(frozen=True)
class BackboneConfig:
    """Sizes of a transformer backbone; the fields mirror a Hugging Face ``config.json``.

    ``dtype`` is the compute dtype (matrix products and stored activations); norms, softmax and
    losses are always computed in float32. ``remat`` says what differentiation keeps: all
    activations ("none"), or each layer's input, from which the rest is computed again ("layer").
    ``attention_block`` is how many queries attend at once; 0 means all. In blocks, scores are
    never whole in memory and never kept.
    """

    kind: str
    vocab_size: int
    width: int
    layers: int
    heads: int
    feed_forward: int
    max_positions: int  # Rows of the position table, RoBERTa's two unused ones included.
    type_vocab: int
    norm_epsilon: float
    activation: str
    pad_id: int
    dtype: str
    remat: str = "none"
    attention_block: int = 0

    def __post_init__(self):
        """Checks every field that a user can get wrong."""
        for name, choices in (
            ("kind", KINDS),
            ("activation", ACTIVATIONS),
            ("dtype", DTYPES),
            ("remat", REMAT),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {getattr(self, name)!r}; choose one of {choices}.")
        for field in ("vocab_size", "width", "layers", "heads", "feed_forward", "type_vocab"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} is {getattr(self, field)}; it must be at least 1.")
        if self.attention_block < 0:
            raise ValueError(f"attention_block is {self.attention_block}; give 0 (whole) or more.")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not divisible by heads {self.heads}.")
        if self.longest_sequence < 1:
            raise ValueError(f"max_positions is {self.max_positions}; no position is left.")

    @property
    def head_width(self) -> int:
        """Width of one attention head."""
        return self.width // self.heads

    @property
    def position_offset(self) -> int:
        """First position id: RoBERTa counts on from its padding id."""
        return self.pad_id + 1 if self.kind == "roberta" else 0

    @property
    def longest_sequence(self) -> int:
        """Most tokens that the position table can hold."""
        return self.max_positions - self.position_offset

    @property
    def compute_dtype(self) -> jnp.dtype:
        """The compute dtype as a JAX dtype."""
        return jnp.dtype(self.dtype)
