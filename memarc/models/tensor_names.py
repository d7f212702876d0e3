"""The names of tensors in Hugging Face files of all backbones: the one table of each kind.

Axes: D width, F feed-forward width, G key heads, K width of a head, L layers, V vocabulary, I
inputs, O outputs.
"""

import dataclasses
import re

from memarc.models.config import BackboneConfig

_PREFIXES = {"bert": "bert.", "roberta": "roberta.", "gpt2": "transformer.", "llama": "model."}
_TABLE = "lm_head.weight"

_IGNORED = {  # Heads of other tasks, and tables of what is computed: 0, 1, 2, ..; masks; angles.
    "bert": r"pooler\.|cls\.|lm_head\.|classifier\.|embeddings\.position_ids",
    "roberta": r"pooler\.|cls\.|lm_head\.|classifier\.|embeddings\.position_ids",
    "gpt2": r"score\.|h\.\d+\.attn\.(masked_)?bias$",
    "llama": r"score\.|.*rotary_emb\.inv_freq$",
}

_OLD_NORMS = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}


@dataclasses.dataclass(frozen=True)
class Entry:
    """One leaf of our tree and the tensors of a file that it is made of.

    Attributes:
      path: Path in our tree.
      name: Name in a file, without prefix; "{layer}" in it stands for 0 .. L - 1.
      shape: Shape of the leaf, without the axis L.
      transposed: True where a file holds [O, I] and our tree [I, O].
      part: (i, n): the leaf is the i-th of n equal parts of the tensor's last axis.
    """

    path: tuple[str, ...]
    name: str
    shape: tuple[int, ...]
    transposed: bool
    part: tuple[int, int] = (0, 1)

    def leaf_shape(self, config: BackboneConfig) -> tuple[int, ...]:
        """Shape in our tree."""
        return (config.layers, *self.shape) if "{layer}" in self.name else self.shape

    def file_shape(self) -> tuple[int, ...]:
        """Shape of each tensor in a file."""
        shape = self.shape[::-1] if self.transposed else self.shape
        return (*shape[:-1], self.part[1] * shape[-1])

    def tensors(self, config: BackboneConfig) -> list[tuple[str, tuple[int, ...]]]:
        """Each tensor's name in a file and the index of its part of the leaf."""
        if "{layer}" not in self.name:
            return [(self.name, ())]
        return [(self.name.format(layer=i), (i,)) for i in range(config.layers)]


def name_table(config: BackboneConfig) -> list[Entry]:
    """Lists every leaf of the backbone's tree with its names in a file."""
    make = {"bert": _encoder, "roberta": _encoder, "gpt2": _gpt2, "llama": _llama}
    table = make[config.kind](config)
    if config.has_table:
        shape = (config.vocab_size, config.width)
        table.append(Entry(("final", "table"), _TABLE, shape, False))
    return table


def bare_name(full_name: str, kind: str) -> str:
    """Drops the model's prefix ("bert.", "model.") and modernises the names of old norms."""
    name = full_name.removeprefix(_PREFIXES[kind])
    for old, new in _OLD_NORMS.items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def full_name(name: str, config: BackboneConfig) -> str:
    """The name to write: a decoder's file is of the whole language model, an encoder's is not."""
    if not config.parts.is_decoder or name == _TABLE:
        return name
    return _PREFIXES[config.kind] + name


def is_ignored(name: str, config: BackboneConfig) -> bool:
    """Whether a file may hold a tensor of this bare name that is not read."""
    if config.parts.is_decoder and name == _TABLE:
        return not config.has_table  # Some files hold a tied table twice.
    return re.match(_IGNORED[config.kind], name) is not None


def _encoder(config: BackboneConfig) -> list[Entry]:
    d, f, prefix = config.width, config.feed_forward, "encoder.layer.{layer}."

    def norm(path: tuple[str, ...], name: str) -> list[Entry]:
        return _norm(path, f"{name}.LayerNorm", d)

    def dense(path: tuple[str, ...], name: str, inputs: int, outputs: int) -> list[Entry]:
        return _dense(path, prefix + name, inputs, outputs)

    rows = {"word": config.vocab_size, "position": config.max_positions}
    rows["token_type"] = config.type_vocab
    return [
        *(
            Entry(("embeddings", key), f"embeddings.{key}_embeddings.weight", (size, d), False)
            for key, size in rows.items()
        ),
        *norm(("embeddings",), "embeddings"),
        *dense(("attention", "query"), "attention.self.query", d, d),
        *dense(("attention", "key"), "attention.self.key", d, d),
        *dense(("attention", "value"), "attention.self.value", d, d),
        *dense(("attention", "output"), "attention.output.dense", d, d),
        *norm(("layers", "attention"), f"{prefix}attention.output"),
        *dense(("feed_forward", "intermediate"), "intermediate.dense", d, f),
        *dense(("feed_forward", "output"), "output.dense", f, d),
        *norm(("layers", "feed_forward"), f"{prefix}output"),
    ]


def _gpt2(config: BackboneConfig) -> list[Entry]:
    """Maps are stored [I, O] here, and queries, keys and values as one."""
    d, f = config.width, config.feed_forward

    def dense(
        path: tuple[str, ...], name: str, inputs: int, outputs: int, part: tuple[int, int] = (0, 1)
    ) -> list[Entry]:
        return _dense(path, f"h.{{layer}}.{name}", inputs, outputs, transposed=False, part=part)

    return [
        Entry(("embeddings", "word"), "wte.weight", (config.vocab_size, d), False),
        Entry(("embeddings", "position"), "wpe.weight", (config.max_positions, d), False),
        *_norm(("layers", "attention"), "h.{layer}.ln_1", d),
        *(
            entry
            for i, name in enumerate(("query", "key", "value"))
            for entry in dense(("attention", name), "attn.c_attn", d, d, (i, 3))
        ),
        *dense(("attention", "output"), "attn.c_proj", d, d),
        *_norm(("layers", "feed_forward"), "h.{layer}.ln_2", d),
        *dense(("feed_forward", "intermediate"), "mlp.c_fc", d, f),
        *dense(("feed_forward", "output"), "mlp.c_proj", f, d),
        *_norm(("final",), "ln_f", d),
    ]


def _llama(config: BackboneConfig) -> list[Entry]:
    d, f, narrow = config.width, config.feed_forward, config.key_heads * config.head_width

    def dense(path: tuple[str, ...], name: str, inputs: int, outputs: int) -> Entry:
        name = f"layers.{{layer}}.{name}.weight"
        return Entry(("layers", *path, "kernel"), name, (inputs, outputs), True)

    def norm(path: tuple[str, ...], name: str) -> Entry:
        return Entry((*path, "norm", "scale"), f"{name}.weight", (d,), False)

    return [
        Entry(("embeddings", "word"), "embed_tokens.weight", (config.vocab_size, d), False),
        norm(("layers", "attention"), "layers.{layer}.input_layernorm"),
        dense(("attention", "query"), "self_attn.q_proj", d, d),
        dense(("attention", "key"), "self_attn.k_proj", d, narrow),
        dense(("attention", "value"), "self_attn.v_proj", d, narrow),
        dense(("attention", "output"), "self_attn.o_proj", d, d),
        norm(("layers", "feed_forward"), "layers.{layer}.post_attention_layernorm"),
        dense(("feed_forward", "gated"), "mlp.up_proj", d, f),
        dense(("feed_forward", "intermediate"), "mlp.gate_proj", d, f),
        dense(("feed_forward", "output"), "mlp.down_proj", f, d),
        norm(("final",), "norm"),
    ]


def _norm(path: tuple[str, ...], name: str, width: int) -> list[Entry]:
    return [
        Entry((*path, "norm", "scale"), f"{name}.weight", (width,), False),
        Entry((*path, "norm", "bias"), f"{name}.bias", (width,), False),
    ]


def _dense(
    path: tuple[str, ...],
    name: str,
    inputs: int,
    outputs: int,
    *,
    transposed: bool = True,
    part: tuple[int, int] = (0, 1),
) -> list[Entry]:
    path = ("layers", *path)
    return [
        Entry((*path, "kernel"), f"{name}.weight", (inputs, outputs), transposed, part),
        Entry((*path, "bias"), f"{name}.bias", (outputs,), False, part),
    ]
