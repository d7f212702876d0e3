"""Sizes of a backbone and what its layers are made of, checked at construction."""

import dataclasses

import jax.numpy as jnp

from memarc.models.rotary import Rope

ACTIVATIONS = ("gelu", "gelu_fast", "gelu_new", "gelu_pytorch_tanh", "relu", "silu")
DTYPES = ("float32", "bfloat16")
REMAT = ("none", "layer")
_CHOICES = {
    "norm": ("layer", "rms"),
    "positions": ("table", "table after padding", "none"),
    "query_norm": ("", "head", "whole"),
}


def _dtypes() -> tuple[str, ...]:
    """Compute dtypes: those of runs, and where JAX has 64 bits, that of references."""
    return (*DTYPES, "float64") if jnp.result_type(float) == jnp.float64 else DTYPES


@dataclasses.dataclass(frozen=True)
class Parts:
    """What tells backbones apart, besides sizes, in all of their layers alike.

    Attributes:
      is_decoder: Tokens read earlier ones only, and a token's state predicts the next one.
      norm: "layer", or "rms": the scale only, and no centring.
      norm_bias: Norms add a bias.
      adds_one: Norms multiply by 1 + scale.
      norms: Where norms stand in attention and in feed-forward blocks: "before", of what the block
        reads; "inside", of what it adds to the residual; "after", of the sum.
      final_norm: A norm follows the last layer.
      embedding_norm: A norm follows the embeddings.
      positions: Rows of a "table"; of a "table after padding", in which padding takes no place and
        positions count on from its id; or "none".
      is_gated: The feed-forward block multiplies the activation by a second map of its input.
      query_bias: The maps to queries, keys and values have biases.
      output_bias: The map out of attention has a bias.
      mlp_bias: The maps of the feed-forward block have biases.
      query_norm: A norm of queries and one of keys, of each "head" or of the "whole"; else "".
      is_parallel: The feed-forward block reads what attention reads, not what it gives.
    """

    is_decoder: bool
    norm: str = "layer"
    norm_bias: bool = True
    adds_one: bool = False
    norms: tuple[str, ...] = ("before",)
    final_norm: bool = True
    embedding_norm: bool = False
    positions: str = "table"
    is_gated: bool = False
    query_bias: bool = True
    output_bias: bool = True
    mlp_bias: bool = True
    query_norm: str = ""
    is_parallel: bool = False

    def __post_init__(self) -> None:
        """Checks what is no boolean."""
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {getattr(self, name)!r}; choose one of {choices}.")
        if not set(self.norms) <= {"before", "inside", "after"} or {"before", "after"} <= set(
            self.norms
        ):
            raise ValueError(f"norms is {self.norms!r}; 'inside' may go with 'before' or 'after'.")

    @property
    def has_biases(self) -> bool:
        """Whether there is any bias in a layer."""
        return self.query_bias or self.output_bias or self.mlp_bias or self.norm_bias


@dataclasses.dataclass(frozen=True)
class Transform:
    """What stands between the last state and the words of a masked-language model.

    It is a map [D, D], an activation and a norm (Devlin et al. 2019, arXiv:1810.04805).

    Attributes:
      activation: Its activation.
      bias: Whether the map has a bias.
    """

    activation: str
    bias: bool = True


@dataclasses.dataclass(frozen=True)
class LayerKind:
    """What layers of one backbone may differ in.

    Attributes:
      reach: How many tokens back, and in encoders ahead, a token reads besides itself; None: all.
      rope: Rotary positions, or None.
      is_normed: Whether attention has its norm before, where `Parts.norms` has one.
    """

    reach: int | None = None
    rope: Rope | None = None
    is_normed: bool = True


@dataclasses.dataclass(frozen=True)
class BackboneConfig:
    """A transformer backbone; `memarc.models.families` makes it from a family's name and sizes.

    ``dtype`` is the compute dtype (matrix products and stored activations); norms, softmax and
    losses are always computed in float32. ``remat`` says what differentiation keeps of a layer: the
    results of its linear maps ("none": none of them is computed again, but what lies between them
    is), or its input alone ("layer").
    ``attention_block`` is how many queries attend at once; 0 means all. In blocks, scores are
    never whole in memory and never kept.
    """

    kind: str  # The name of the family.
    parts: Parts
    vocab_size: int
    width: int
    layers: int
    heads: int
    feed_forward: int
    max_positions: int  # Rows of the position table, RoBERTa's two unused ones included.
    norm_epsilon: float
    activation: str
    dtype: str
    type_vocab: int = 0  # Token types of encoders; 0: none.
    pad_id: int | None = None  # Of encoders; in a decoder no token reads the padding behind it.
    kv_heads: int = 0  # Heads of keys and values, each read by as many queries; 0 means ``heads``.
    head_size: int = 0  # Width of a head; 0 means ``width / heads``.
    embedding_width: int = 0  # Of tables of embeddings, which a map widens; 0 means ``width``.
    embedding_scale: float = 1.0  # Word embeddings are multiplied by it.
    score_width: float = 0.0  # Scores are divided by its root; 0 means the width of a head.
    score_cap: float = 0.0  # c: scores s of attention become c tanh(s / c); 0 means they stay.
    logit_cap: float = 0.0  # The same of a decoder's logits.
    distance_buckets: int = 0  # Buckets of distances that have a bias of attention; 0: no biases.
    layer_kinds: tuple[LayerKind, ...] = (LayerKind(),)
    kind_of_layer: tuple[int, ...] = ()  # Each layer's place in ``layer_kinds``; (): all the first.
    has_table: bool = False  # A decoder's output table is its own; else it is the word table.
    transform: Transform | None = None  # Of an encoder whose masked-language head is read.
    remat: str = "none"
    attention_block: int = 0
    source: str = dataclasses.field(default="", compare=False, repr=False)  # config.json as read.

    def __post_init__(self) -> None:
        """Checks every field that a user can get wrong."""
        for name, choices in (("activation", ACTIVATIONS), ("dtype", _dtypes()), ("remat", REMAT)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {getattr(self, name)!r}; choose one of {choices}.")
        for field in ("vocab_size", "width", "layers", "heads", "feed_forward"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} is {getattr(self, field)}; it must be at least 1.")
        if self.pad_id is None and not self.parts.is_decoder:
            raise ValueError(f"pad_id is None; a {self.kind} encoder needs the id of its padding.")
        if self.attention_block < 0:
            raise ValueError(f"attention_block is {self.attention_block}; give 0 (whole) or more.")
        self._check_heads()
        self._check_kinds()
        if self.longest_sequence < 1:
            raise ValueError(f"max_positions is {self.max_positions}; no position is left.")

    def _check_heads(self) -> None:
        if not self.head_size and self.width % self.heads:
            raise ValueError(f"width {self.width} is not divisible by heads {self.heads}.")
        if self.kv_heads < 0 or self.heads % self.key_heads:
            raise ValueError(f"kv_heads is {self.kv_heads}; it must divide heads {self.heads}.")

    def _check_kinds(self) -> None:
        places, count = self.kind_of_layer, len(self.layer_kinds)
        if places and (len(places) != self.layers or not 0 <= min(places) <= max(places) < count):
            raise ValueError(
                f"kind_of_layer is {places}; give each of {self.layers} layers a place in the "
                f"{count} layer_kinds, or ()."
            )
        widths = {kind.rope.width(self.head_width) for kind in self.layer_kinds if kind.rope}
        if any(width % 2 for width in widths):
            of = f"Head width {self.head_width}"
            raise ValueError(f"{of} is odd where it turns; rotary positions need pairs.")
        if len(widths) > 1:
            raise ValueError(f"Layers turn {sorted(widths)} components of a head; give one number.")

    @property
    def head_width(self) -> int:
        """Width of one attention head."""
        return self.head_size or self.width // self.heads

    @property
    def key_heads(self) -> int:
        """Heads of keys and values."""
        return self.kv_heads or self.heads

    @property
    def rotary_width(self) -> int:
        """How many components of a head rotary positions turn; 0 without them."""
        return max((x.rope.width(self.head_width) for x in self.layer_kinds if x.rope), default=0)

    @property
    def position_offset(self) -> int:
        """First position id."""
        if self.parts.positions == "table after padding" and self.pad_id is not None:
            return self.pad_id + 1
        return 0

    @property
    def longest_sequence(self) -> int:
        """Most tokens that the position table can hold."""
        return self.max_positions - self.position_offset

    @property
    def compute_dtype(self) -> jnp.dtype:
        """The compute dtype as a JAX dtype."""
        return jnp.dtype(self.dtype)
