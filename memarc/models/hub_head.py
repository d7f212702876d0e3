"""Our heads as the heads of transformers' models that classify, where these can be them.

A decoder's is one linear map of the last token, without bias. An encoder's is two maps of the first
token with a function between, and so is ours of the same form. Ours of one linear map becomes the
two where the function is almost linear at zero: the first map scales states down so far that what
is left of its curve is below float32's rounding, the second scales up again.

Axes: D width, C classes.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from memarc.models.config import BackboneConfig
from memarc.models.families import known
from memarc.models.head import LINEAR, HeadConfig, ValueHeadConfig
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
    """The two maps of an encoder's head, and what stands between them.

    Attributes:
      first: Name of the dense map.
      second: Name of the map to logits.
      modules: The maps of the head (`HubHead`).
      form: The same head as ours (`HeadConfig.form`).
      slope: Of the function at zero; None where it has none, as ReLU.
    """

    first: str
    second: str
    modules: tuple[str, ...]
    form: str = "dense_tanh"
    slope: float | None = 1.0


_OF_ROBERTA = _Form("classifier.dense", "classifier.out_proj", ("classifier",))
_FORMS = {
    "bert": _Form("bert.pooler.dense", "classifier", ("pooler", "classifier")),
    "roberta": _OF_ROBERTA,
    "xlm-roberta": _OF_ROBERTA,
    "camembert": _OF_ROBERTA,
    "mpnet": _OF_ROBERTA,
    "electra": dataclasses.replace(_OF_ROBERTA, form="dense_gelu", slope=0.5),
    "distilbert": _Form(
        "pre_classifier", "classifier", ("pre_classifier", "classifier"), "dense_relu", None
    ),
}
_ELSE = "use the folder itself, by memarc.load, or tune again"


def of_head(config: BackboneConfig, head: HeadConfig | ValueHeadConfig, params: Params) -> HubHead:
    """Writes a head as transformers has it.

    Args:
      config: The backbone.
      head: How the head pools states, and its form.
      params: "kernel" [D, C] and, unless the head has none, "bias" [C]; in forms of two maps
        "dense" too, whose kernel is [D, D] and bias [D].

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
    if head.pooling != wanted:
        raise ValueError(
            f"The head reads the {head.pooling!r} state; {model_class} of transformers reads the "
            f"{wanted!r} one: {_ELSE} with head.pooling={wanted!r}."
        )
    form = _FORMS.get(config.kind)
    if head.form != LINEAR and (form is None or form.form != head.form):
        theirs = LINEAR if config.parts.is_decoder else form.form if form else "another"
        raise ValueError(
            f"head.form is {head.form!r}; the form of {model_class} of transformers is "
            f"{theirs!r}: {_ELSE} with a form of its own, or with a backbone whose form it is."
        )
    if config.parts.is_decoder:
        return _of_decoder(config, model_class, kernel, bias)
    if form is None or (head.form == LINEAR and form.slope is None):
        own = "" if form is None else f" with head.form={form.form!r}, or"
        linear = [kind for kind, x in _FORMS.items() if x.slope is not None]
        raise ValueError(
            f"The head of {model_class} of transformers is not linear, and cannot be made so: "
            f"{_ELSE}{own} with a backbone of {', '.join(linear)}."
        )
    return HubHead(model_class, _two_maps(form, params, kernel, bias), form.modules)


def _two_maps(
    form: _Form, params: Params, kernel: np.ndarray, bias: np.ndarray | None
) -> dict[str, np.ndarray]:
    """An encoder's head: our own two maps, or one that is made two."""
    width, classes = kernel.shape
    if "dense" in params:
        first, shift = (np.asarray(params["dense"][x], np.float32) for x in ("kernel", "bias"))
        scale = 1.0
    else:
        assert form.slope is not None  # As `of_head` has seen.
        first = np.eye(width, dtype=np.float32) * np.float32(_SMALL)
        shift, scale = np.zeros(width, np.float32), _SMALL * form.slope
    return {
        # safetensors writes memory as it lies.
        f"{form.first}.weight": np.ascontiguousarray(first.T),
        f"{form.first}.bias": shift,
        f"{form.second}.weight": np.ascontiguousarray(kernel.T / np.float32(scale)),
        f"{form.second}.bias": np.zeros(classes, np.float32) if bias is None else bias,
    }


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
