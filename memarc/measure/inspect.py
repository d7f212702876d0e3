"""Looks at a model before anything is trained: what it is, whether it is right, what works on it.

Axes: B batch, T tokens.
"""

import collections
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from memarc.batches import ATTENTION_MASK, INPUT_IDS, IS_TARGET, TOKEN_TYPE_IDS
from memarc.data import public_text, tokenize
from memarc.measure import peer, reversibility
from memarc.measure import step as measure
from memarc.measure.case import Case
from memarc.models import backbone, pretrained, tensor_files
from memarc.models.build import build
from memarc.models.config import BackboneConfig
from memarc.models.head import HeadConfig
from memarc.models.language import LanguageConfig
from memarc.models.methods import REMAT_SUFFIX, all_options
from memarc.models.reversible import Reversible
from memarc.ops import quantised
from memarc.privacy.clipping import Clipping
from memarc.training.optimizer import OptimizerConfig
from memarc.typing import Batch, Params

_TOKENIZER_FILES = ("tokenizer*", "vocab*", "*.model")


@dataclasses.dataclass(frozen=True, eq=False)
class Opened:
    """A model that has been read.

    Attributes:
      place: Its folder or GGUF file.
      config: Its sizes; it computes in float32.
      params: Its parameters, float32.
    """

    place: Path
    config: BackboneConfig
    params: Params


def open_model(weights: str | os.PathLike[str]) -> Opened:
    """Reads a model (`memarc.models.pretrained.load`).

    Raises:
      ValueError: If it cannot be read, or is not supported.
    """
    place = pretrained.find(weights)
    config, params = pretrained.load(place, dtype="float32", storage_dtype="float32")
    return Opened(place, config, params)


def facts(model: Opened) -> dict[str, Any]:
    """What the model is.

    Returns:
      family; sizes; parameters, how many numbers; file_dtypes, type -> tensors of the files.
    """
    config = model.config
    sizes = {
        "layers": config.layers,
        "width": config.width,
        "heads": config.heads,
        "key_heads": config.key_heads,
        "head_width": config.head_width,
        "feed_forward": config.feed_forward,
        "vocab_size": config.vocab_size,
        "longest_sequence": config.longest_sequence,
    }
    tensors = tensor_files.find(model.place, config)
    dtypes = collections.Counter(tensor.dtype for tensor in tensors.values())
    return {
        "family": config.kind,
        "sizes": sizes,
        "parameters": sum(
            x.size for x in jax.tree.leaves(model.params, is_leaf=quantised.is_quantised)
        ),
        "file_dtypes": dict(sorted(dtypes.items())),
    }


def public_batch(
    config: BackboneConfig, tokenizer: tokenize.Tokenizer | None, rows: int, length: int
) -> Batch:
    """Rows that are public: plain sentences, or random ids without a tokenizer.

    Args:
      config: Sizes of the backbone.
      tokenizer: Of `memarc.data.tokenize`, or None.
      rows: B.
      length: T at most; rows are of different lengths, padded on the right. A decoder's begin with
        the token that its tokenizer names for that, as rows that it is trained on do.

    Returns:
      Key -> int32[B, T], of both kinds of task; all real tokens are targets.

    Raises:
      ValueError: If a length does not fit, or the tokenizer is of a larger table.
    """
    if rows < 1 or not 2 <= length <= config.longest_sequence:
        raise ValueError(
            f"batch_size is {rows} and seq_len {length}; give at least 1, and 2 to "
            f"{config.longest_sequence} tokens."
        )
    if tokenizer is None:
        rng = np.random.default_rng(0)
        lengths = [max(2, length * (row + 1) // rows) for row in range(rows)]
        ids = [rng.integers(min(2, config.vocab_size - 1), config.vocab_size, x) for x in lengths]
    else:
        pairs = public_text.SENTENCES
        texts = [" ".join(pairs[row % len(pairs)][: 1 + row % 2]) for row in range(rows)]
        ids = _begun(config, tokenizer, texts, length)
    if max(row.max() for row in ids) >= config.vocab_size:
        raise ValueError(
            f"The tokenizer has more than {config.vocab_size} ids, the rows of the model's table; "
            "give the tokenizer that the weights were trained with."
        )
    width = max(len(row) for row in ids)
    tokens = np.full((rows, width), config.pad_id or 0, np.int32)
    mask = np.zeros((rows, width), np.int32)
    for row, its in enumerate(ids):
        tokens[row, : len(its)], mask[row, : len(its)] = its, 1
    return {
        INPUT_IDS: tokens,
        ATTENTION_MASK: mask,
        TOKEN_TYPE_IDS: np.zeros_like(mask),
        IS_TARGET: mask,
    }


def _begun(
    config: BackboneConfig, tokenizer: tokenize.Tokenizer, texts: Sequence[str], length: int
) -> list[np.ndarray]:
    """The ids of texts, of ``length`` at most."""
    found = tokenize.encode(tokenizer, (texts,), max_length=length)
    ids = np.split(found.tokens[INPUT_IDS], found.offsets[1:-1])
    first = tokenizer.bos_token_id
    if first is None or not config.parts.is_decoder:
        return ids
    return [row if row[0] == first else np.insert(row, 0, first)[:length] for row in ids]


def reversal(model: Opened, batch: Batch) -> dict[str, int]:
    """Runs the exact reversible network there and back on public rows, as it starts.

    Returns:
      mismatched_values, values of the streams that do not come back, and saturated_values, those
      that leave the range.

    Raises:
      ValueError: If the network cannot be made around the backbone.
    """
    config, params = model.config, model.params
    method = Reversible(config)
    adapters, frozen = method.init(jax.random.key(0), params)
    hidden = jax.jit(backbone.embed, static_argnums=0)(config, params, batch)
    found, _ = jax.jit(reversibility.exact_probe, static_argnums=0)(
        method.network,
        adapters,
        backbone.layers_of(config, params),
        jax.numpy.asarray(backbone.token_mask(batch)),
        None,
        frozen["drawn"]["unit"],
        hidden,
    )
    return {name: int(found[name]) for name in ("mismatched_values", "saturated_values")}


def losses(model: Opened, batch: Batch) -> dict[str, float | None]:
    """How well a decoder predicts public rows, and the reversible network around it at its start.

    Returns:
      plain_loss and start_loss, nats a token; None for an encoder.
    """
    if not model.config.parts.is_decoder:
        return {"plain_loss": None, "start_loss": None}
    found = {}
    for name, method in (("plain_loss", "head"), ("start_loss", "reversible")):
        decoder = build(method, {}, model.config, LanguageConfig())
        trainable, frozen = decoder.init(jax.random.key(0), model.params)
        nats, tokens = jax.jit(decoder.surprise)(trainable, frozen, batch)
        found[name] = float(f"{float(nats.sum()) / int(tokens.sum()):.5g}")
    return found


def step_of(
    config: BackboneConfig, label: str, engines: Sequence[str], rows: int, length: int
) -> dict[str, Any]:
    """Compiles the private step of a method for this device.

    Args:
      config: Sizes of the backbone; its compute dtype is also that of frozen weights.
      label: A method with its usual options, or one and `REMAT_SUFFIX`.
      engines: Engines; the first that takes the method's loss is compiled.
      rows: B, all in one microbatch.
      length: T.

    Returns:
      engine; arguments_bytes (weights, state and batch), peak_bytes and reserved_bytes, as of
      `memarc.ops.compiled` (a CPU's compiler reports a peak that leaves temporaries out), or
      needed_bytes of a step that does not fit; or error, why the method does not work.

    Raises:
      ValueError: For an unknown method, naming the choices.
    """
    name = label.removesuffix(REMAT_SUFFIX)
    options = all_options(name, {})
    remat = "none" if name == label else "layer"
    is_decoder = config.parts.is_decoder
    case = Case(
        method=name,
        backbone=dataclasses.replace(config, remat=remat),
        options=options,
        head=LanguageConfig() if is_decoder else HeadConfig(pooling="first", classes=2),
        storage_dtype=config.dtype,
        storage_block=quantised.BLOCK,
        clipping=Clipping(1.0),
        noise_multiplier=1.0,
        optimizer=OptimizerConfig(),
        batch_size=rows,
        seq_len=length,
    )
    target = measure.here()
    refused = ""
    for engine in engines:
        try:
            line = measure.compile_step(case, engine, rows, target)
        except ValueError as error:
            refused = str(error)
        else:
            kept = ("arguments_bytes", "peak_bytes", "reserved_bytes", "needed_bytes")
            return {"engine": engine, **{key: line[key] for key in kept if key in line}}
    return {"error": refused}


def compare(model: Opened, batch: Batch, *, is_wanted: bool) -> dict[str, float | None]:
    """States and logits against transformers (`peer.errors`); None if not wanted, or no torch."""
    if not is_wanted or not peer.is_installed():
        return {"states_error": None, "logits_error": None}
    return peer.errors(model.place, model.config, model.params, batch)


def tokenizer_of(weights: str | os.PathLike[str]) -> tokenize.Tokenizer | None:
    """The tokenizer beside weights or within their file; None if there is none that is read."""
    place = Path(weights)
    if place.is_dir() and not any(next(place.glob(x), None) for x in _TOKENIZER_FILES):
        return None  # Without asking transformers, which is slow.
    try:
        return tokenize.load_tokenizer(str(weights), needs_pad=False)
    except ValueError:
        return None
