"""Sizes of a backbone, checked at construction, and what each kind of backbone is made of."""

import dataclasses

import jax.numpy as jnp

ACTIVATIONS = ("gelu", "gelu_new", "relu", "silu")
DTYPES = ("float32", "bfloat16")
REMAT = ("none", "layer")


@dataclasses.dataclass(frozen=True)
class Kind:
    """What tells one kind of backbone from another, apart from sizes.

    Attributes:
      is_decoder: Tokens read earlier ones only, and a token's state predicts the next one. Norms
        stand before attention and feed-forward blocks, and one at the end; else after them.
      norm: "layer", or "rms": the scale only, and no centring.
      is_rotary: Positions turn queries and keys; else they are rows of a table.
      is_gated: The feed-forward block multiplies the activation by a second map of its input.
      has_biases: Dense maps have biases.
    """

    is_decoder: bool
    norm: str
    is_rotary: bool
    is_gated: bool
    has_biases: bool


_ENCODER = Kind(is_decoder=False, norm="layer", is_rotary=False, is_gated=False, has_biases=True)
KINDS = {
    "bert": _ENCODER,
    "roberta": _ENCODER,
    "gpt2": dataclasses.replace(_ENCODER, is_decoder=True),
    "llama": Kind(is_decoder=True, norm="rms", is_rotary=True, is_gated=True, has_biases=False),
}


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
    norm_epsilon: float
    activation: str
    dtype: str
    type_vocab: int = 0  # Of encoders.
    pad_id: int | None = None  # Of encoders; in a decoder no token reads the padding behind it.
    kv_heads: int = 0  # Heads of keys and values, each read by as many queries; 0 means ``heads``.
    rope_theta: float = 10000.0  # Longest wavelength of rotary positions over 2 pi.
    has_table: bool = False  # A decoder's output table is its own; else it is the word table.
    remat: str = "none"
    attention_block: int = 0

    def __post_init__(self) -> None:
        """Checks every field that a user can get wrong."""
        for name, choices in (
            ("kind", tuple(KINDS)),
            ("activation", ACTIVATIONS),
            ("dtype", DTYPES),
            ("remat", REMAT),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {getattr(self, name)!r}; choose one of {choices}.")
        sizes = ["vocab_size", "width", "layers", "heads", "feed_forward"]
        for field in sizes if self.parts.is_decoder else [*sizes, "type_vocab"]:
            if getattr(self, field) < 1:
                raise ValueError(f"{field} is {getattr(self, field)}; it must be at least 1.")
        if self.pad_id is None and not self.parts.is_decoder:
            raise ValueError(f"pad_id is None; a {self.kind} encoder needs the id of its padding.")
        if self.attention_block < 0:
            raise ValueError(f"attention_block is {self.attention_block}; give 0 (whole) or more.")
        self._check_heads()
        if self.longest_sequence < 1:
            raise ValueError(f"max_positions is {self.max_positions}; no position is left.")

    def _check_heads(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not divisible by heads {self.heads}.")
        if self.kv_heads < 0 or self.heads % self.key_heads:
            raise ValueError(f"kv_heads is {self.kv_heads}; it must divide heads {self.heads}.")
        if self.parts.is_rotary and self.head_width % 2:
            raise ValueError(f"Head width {self.head_width} is odd; rotary positions need pairs.")

    @property
    def parts(self) -> Kind:
        """What this kind of backbone is made of."""
        return KINDS[self.kind]

    @property
    def head_width(self) -> int:
        """Width of one attention head."""
        return self.width // self.heads

    @property
    def key_heads(self) -> int:
        """Heads of keys and values."""
        return self.kv_heads or self.heads

    @property
    def position_offset(self) -> int:
        """First position id: RoBERTa counts on from its padding id."""
        return self.pad_id + 1 if self.kind == "roberta" and self.pad_id is not None else 0

    @property
    def longest_sequence(self) -> int:
        """Most tokens that the position table can hold."""
        return self.max_positions - self.position_offset

    @property
    def compute_dtype(self) -> jnp.dtype:
        """The compute dtype as a JAX dtype."""
        return jnp.dtype(self.dtype)
