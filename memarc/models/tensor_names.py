"""The names of tensors in Hugging Face files of BERT and RoBERTa encoders: the one table.

Axes: D width, F feed-forward width, L layers, I inputs, O outputs.
"""

import dataclasses

from memarc.models.config import BackboneConfig

IGNORED = ("pooler.", "cls.", "lm_head.", "classifier.", "embeddings.position_ids")
"""Starts of the names that a file may hold and that are not read: heads, a table of 0, 1, 2, ..."""

_OLD_NORMS = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}


@dataclasses.dataclass(frozen=True)
class Entry:
    """One leaf of our tree and the tensors of a file that it is made of.

    Attributes:
      path: Path in our tree.
      name: Name in a file, without prefix; "{layer}" in it stands for 0 .. L - 1.
      shape: Shape of the leaf, without the axis L.
      transposed: True for kernels: a file holds [O, I], our tree [I, O].
    """

    path: tuple[str, ...]
    name: str
    shape: tuple[int, ...]
    transposed: bool

    def leaf_shape(self, config: BackboneConfig) -> tuple[int, ...]:
        """Shape in our tree."""
        return (config.layers, *self.shape) if "{layer}" in self.name else self.shape

    def file_shape(self) -> tuple[int, ...]:
        """Shape of each tensor in a file."""
        return self.shape[::-1] if self.transposed else self.shape

    def tensors(self, config: BackboneConfig) -> list[tuple[str, tuple[int, ...]]]:
        """Each tensor's name in a file and the index of its part of the leaf."""
        if "{layer}" not in self.name:
            return [(self.name, ())]
        return [(self.name.format(layer=i), (i,)) for i in range(config.layers)]


def name_table(config: BackboneConfig) -> list[Entry]:
    """Lists every leaf of the backbone's tree with its names in a file."""
    d, f = config.width, config.feed_forward

    def norm(path, name):
        name = f"{name}.LayerNorm"
        return [
            Entry((*path, "norm", "scale"), f"{name}.weight", (d,), False),
            Entry((*path, "norm", "bias"), f"{name}.bias", (d,), False),
        ]

    def dense(path, name, inputs, outputs):
        name = f"encoder.layer.{{layer}}.{name}"
        return [
            Entry(("layers", *path, "kernel"), f"{name}.weight", (inputs, outputs), True),
            Entry(("layers", *path, "bias"), f"{name}.bias", (outputs,), False),
        ]

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
        *norm(("layers", "attention"), "encoder.layer.{layer}.attention.output"),
        *dense(("feed_forward", "intermediate"), "intermediate.dense", d, f),
        *dense(("feed_forward", "output"), "output.dense", f, d),
        *norm(("layers", "feed_forward"), "encoder.layer.{layer}.output"),
    ]


def bare_name(full_name: str, kind: str) -> str:
    """Drops the model's prefix ("bert.", "roberta.") and modernises the names of old norms."""
    name = full_name.removeprefix(f"{kind}.")
    for old, new in _OLD_NORMS.items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name
