"""Our linear heads as the heads of transformers' models that classify, where these can be them.

Ours is one linear map of a pooled state. A decoder's is one too, of the last token, without bias.
An encoder's is two maps of the first token with a function between that is nowhere linear but
almost so at zero: the first map scales states down so far that what is left of its curve is below
float32's rounding, the second scales up again.

Axes: D width, C classes.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from memarc.models.config import BackboneConfig
from memarc.models.families import known
from memarc.typing import Params

_SMALL = 2.0**-20
"""How far states are scaled down: a power of two, so that nothing is rounded."""

_NORM_BIAS = ("final", "norm", "bias")


@dataclasses.dataclass(frozen=True)
class HubHead:
    """A head in a file of transformers.

    Attributes:
      model_class: The class that opens the whole model.
      tensors: Full name -> values.
      modules: Names of the modules that hold the tensors, without what stands before them.
      norm_shift: What is to be added to the bias of the last norm, float[D], or None.
    """

    model_class: str
    tensors: Mapping[str, np.ndarray]
    modules: tuple[str, ...]
    norm_shift: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class _Form:
    """The two maps of an encoder's head, and the slope at zero of what stands between them."""

    first: str
    second: str
    modules: tuple[str, ...]
    slope: float = 1.0


_OF_ROBERTA = _Form("classifier.dense", "classifier.out_proj", ("classifier",))
_FORMS = {
    "bert": _Form("bert.pooler.dense", "classifier", ("pooler", "classifier")),
    "roberta": _OF_ROBERTA,
    "xlm-roberta": _OF_ROBERTA,
    "camembert": _OF_ROBERTA,
    "mpnet": _OF_ROBERTA,
    "electra": dataclasses.replace(_OF_ROBERTA, slope=0.5),  # GELU's; the others have tanh.
}
_ELSE = "use the folder itself, by memarc.load, or tune again"


def of_head(config: BackboneConfig, pooling: str, params: Params) -> HubHead:
    """Writes a head as transformers has it.

    Args:
      config: The backbone.
      pooling: How the head pools states.
      params: "kernel" [D, C] and, unless the head has none, "bias" [C].

    Returns:
      The head, equal to ours up to float32's rounding.

    Raises:
      ValueError: If no class of transformers has such a head, naming what to do.
    """
    kernel = np.asarray(params["kernel"], np.float32)
    bias = np.asarray(params["bias"], np.float32) if "bias" in params else None
    pattern = r"(LMHeadModel|ForCausalLM|Model)$"
    model_class = re.sub(pattern, "ForSequenceClassification", known.get(config.kind).model_class)
    wanted = "last" if config.parts.is_decoder else "first"
    if pooling != wanted:
        raise ValueError(
            f"The head reads the {pooling!r} state; {model_class} of transformers reads the "
            f"{wanted!r} one: {_ELSE} with head.pooling={wanted!r}."
        )
    if config.parts.is_decoder:
        return _of_decoder(config, model_class, kernel, bias)
    if config.kind not in _FORMS:
        raise ValueError(
            f"The head of {model_class} of transformers is not linear, and cannot be made so: "
            f"{_ELSE} with a backbone of {', '.join(_FORMS)}."
        )
    form = _FORMS[config.kind]
    width, classes = kernel.shape
    tensors = {
        f"{form.first}.weight": np.eye(width, dtype=np.float32) * np.float32(_SMALL),
        f"{form.first}.bias": np.zeros(width, np.float32),
        # safetensors writes memory as it lies.
        f"{form.second}.weight": np.ascontiguousarray(kernel.T / np.float32(_SMALL * form.slope)),
        f"{form.second}.bias": np.zeros(classes, np.float32) if bias is None else bias,
    }
    return HubHead(model_class, tensors, form.modules)


def shifted(params: Params, head: HubHead) -> Params:
    """A backbone's parameters with what the head puts on the bias of its last norm."""
    if head.norm_shift is None:
        return params
    norm = params["final"]["norm"]
    bias = np.asarray(norm["bias"], np.float32) + head.norm_shift
    return {**params, "final": {**params["final"], "norm": {**norm, "bias": bias}}}


def _of_decoder(
    config: BackboneConfig, model_class: str, kernel: np.ndarray, bias: np.ndarray | None
) -> HubHead:
    """A decoder's head: without bias, which the last norm's takes if it has one."""
    tensors = {"score.weight": np.ascontiguousarray(kernel.T)}
    if bias is None or not bias.any():
        return HubHead(model_class, tensors, ("score",))
    name = next((x.name for x in known.name_table(config) if x.path == _NORM_BIAS), None)
    if name is None:
        raise ValueError(
            f"The head has a bias; that of {model_class} of transformers has none: {_ELSE} with "
            "head.bias=False."
        )
    exact = np.linalg.pinv(kernel.astype(np.float64).T) @ bias.astype(np.float64)  # [D]
    modules = ("score", name.removesuffix(".bias"))
    return HubHead(model_class, tensors, modules, exact.astype(np.float32))


def stated(labels: tuple[Any, ...]) -> dict[str, Any]:
    """What a config.json says of labels; without labels, that one number is given."""
    if not labels:
        return {"num_labels": 1, "problem_type": "regression", "id2label": {"0": "value"}}
    names = [str(label) for label in labels]
    return {
        "problem_type": "single_label_classification",
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
    }
