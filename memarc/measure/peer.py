"""The same model computed by transformers, where torch is installed: what ours is held to.

Axes: B batch, T tokens, D width, L layers, V vocabulary.
"""

import importlib.util
from pathlib import Path
from typing import Any

import jax
import numpy as np

from memarc import gguf_header
from memarc.batches import ATTENTION_MASK, INPUT_IDS, TOKEN_TYPE_IDS
from memarc.models import backbone, gguf_config, tensor_files
from memarc.models.config import BackboneConfig
from memarc.models.families import known
from memarc.typing import Array, Batch, Params


def is_installed() -> bool:
    """Whether torch is."""
    return importlib.util.find_spec("torch") is not None


def errors(
    place: Path, config: BackboneConfig, params: Params, batch: Batch
) -> dict[str, float | None]:
    """Compares states and logits with those of transformers, in float32.

    Args:
      place: The folder or GGUF file that was read.
      config: Its config; the compute dtype must be float32.
      params: Its parameters.
      batch: int32[B, T], padded on the right; padding is not compared.

    Returns:
      states_error, the largest relative error of a state, embeddings first, and logits_error, None
      for an encoder: norms of the difference over norms of transformers' values.
    """
    wanted_states, wanted_logits = _theirs(place, config, batch)
    with jax.default_matmul_precision("highest"):
        states, logits = jax.jit(_ours, static_argnums=0)(config, params, batch)
    real = np.asarray(batch[ATTENTION_MASK]) == 1
    pairs = zip(states, wanted_states, strict=True)
    return {
        "states_error": max(_error(a, b, real) for a, b in pairs),
        "logits_error": None if logits is None else _error(logits, wanted_logits, real),
    }


def _error(ours: Array, wanted: Any, real: np.ndarray) -> float:
    a, b = (np.asarray(x, np.float64)[real] for x in (ours, wanted))
    return float(f"{np.linalg.norm(a - b) / np.linalg.norm(b):.3g}")


def _ours(config: BackboneConfig, params: Params, batch: Batch) -> tuple[list[Array], Array | None]:
    """All states, the last one normed where there is a last norm, and a decoder's logits."""
    hidden, mask = backbone.embed(config, params, batch), backbone.token_mask(batch)
    layers = backbone.layers_of(config, params)
    last, states = backbone.read_states(config, layers, hidden, mask, lambda _, x: x, ())
    states = [hidden, *states]
    if config.parts.final_norm:
        last = states[-1] = backbone.norm_last(config, params, last)
    if not config.parts.is_decoder:
        return states, None
    return states, backbone.output_logits(config, params, last)


def _theirs(place: Path, config: BackboneConfig, batch: Batch) -> tuple[list[Any], Any]:
    """The same by transformers: states [L + 1, B, T, D], and logits [B, T, V] or None."""
    import torch  # Large, and no part of memarc needs it.

    given = {key: torch.tensor(np.asarray(x)).long() for key, x in batch.items()}
    names = [INPUT_IDS, ATTENTION_MASK, *([TOKEN_TYPE_IDS] if config.type_vocab else [])]
    with torch.no_grad():
        out = _model(place, config)(**{x: given[x] for x in names}, output_hidden_states=True)
    states = [x.numpy() for x in out.hidden_states]
    return states, out.logits.numpy() if config.parts.is_decoder else None


def _model(place: Path, config: BackboneConfig) -> Any:
    """A torch model of a folder or a GGUF file, in float32."""
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()  # It lists poolers, which are not read.
    transformers.utils.logging.disable_progress_bar()
    family = known.get(config.kind)
    kind = getattr(transformers, family.model_class)
    if not gguf_header.is_file(place):
        folder = str(place)
        return kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    content = gguf_config.content(gguf_header.read(place))
    special = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
    made = transformers.AutoConfig.for_model(**special, **content, attn_implementation="eager")
    model = kind(made).eval()
    weights = model.state_dict()
    for name, tensor in tensor_files.find(place, config).items():
        with tensor.opened() as source:
            values = source[tuple(slice(0, size) for size in tensor.shape)]
        weights[tensor_files.full_name(name, family)].copy_(torch.from_numpy(values))
    return model
