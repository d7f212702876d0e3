"""Exports a tuned model as a folder that PEFT or transformers opens, with tokenizer and card."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from memarc import gguf_header, paths
from memarc.batches import GENERATION, REGRESSION
from memarc.data import tokenize
from memarc.models import gguf_config, hub_head, peft_files, pretrained
from memarc.models.classifier import Headed
from memarc.models.hub_head import HubHead
from memarc.models.label_words import LabelWords
from memarc.models.lora import Lora, LowRankKernel
from memarc.models.partition import join
from memarc.models.subset import Subset
from memarc.ops import quantised
from memarc.report import card
from memarc.runs.tuned import Tuned
from memarc.typing import Params

PEFT, TRANSFORMERS = FORMS = ("peft", "transformers")

EXPORTED = (Lora, Subset)
"""The classes of methods that have a form in another library."""

_SHARD_BYTES = 5_000_000_000
"""Largest size of one file of weights."""

_LOAD = "by memarc.load"
"""How a model without another form is used."""


def export(tuned: Tuned, to: str, folder: Path) -> None:
    """Writes a tuned model for another library.

    Args:
      tuned: The model.
      to: One of `FORMS`: "peft" writes what LoRA adds, "transformers" a whole model.
      folder: Made if absent.

    Raises:
      ValueError: If the other library has no form for the method or the head, or the folder holds
        something else.
    """
    settings, method = tuned.parts.settings, tuned.parts.model.method
    _check(tuned, to, folder)
    head = _head(tuned)
    labels = () if settings.kind == REGRESSION else tuned.labels
    folder.mkdir(parents=True, exist_ok=True)
    if to == PEFT:
        assert isinstance(method, Lora)  # As `_check` has seen.
        backbone = tuned.frozen["backbone"]
        peft_files.save(
            folder,
            tuned.parts.backbone,
            join(tuned.trainable["tuning"], tuned.frozen["drawn"]),
            alpha=method.alpha,
            base=_base(settings.model.weights)[0],
            head=head,
            params=hub_head.shifted(backbone, head) if head else backbone,
        )
    else:
        params = _plain(method.parameters(tuned.trainable["tuning"], tuned.frozen))
        stated = {"pad_token_id": tuned.parts.codec.info.pad_id, **hub_head.stated(labels)}
        pretrained.save(
            folder,
            tuned.parts.backbone,
            hub_head.shifted(params, head) if head else params,
            max_shard_bytes=_SHARD_BYTES,
            head=head,
            stated=stated if head else None,
        )
    tokenize.save_tokenizer(tuned.parts.codec.tokenizer, str(folder))
    opens = _opens(tuned, to, labels)
    text = card.text(tuned.record, library=to, base=settings.model.weights, opens=opens)
    (folder / "README.md").write_text(text, encoding="utf-8")


def _check(tuned: Tuned, to: str, folder: Path) -> None:
    """Raises ValueError where a method has no form, or the folder holds something."""
    if to not in FORMS:
        raise ValueError(f"Unknown form {to!r}; choose one of {', '.join(FORMS)}.")
    settings, method = tuned.parts.settings, tuned.parts.model.method
    if isinstance(tuned.parts.model, LabelWords):
        raise ValueError(
            "head.pooling is 'words', and no classifier of transformers compares the likelihoods "
            f"of words; use it {_LOAD}, or tune with head.pooling 'last'."
        )
    if to == PEFT and not isinstance(method, Lora):
        known = "as a whole model, --to=transformers" if isinstance(method, Subset) else _LOAD
        raise ValueError(f"Method {settings.method!r} has no form in PEFT; use it {known}.")
    if not isinstance(method, EXPORTED):
        raise ValueError(
            f"Method {settings.method!r} has no form in transformers, whose models are the plain "
            f"backbone; use it {_LOAD}, or tune by lora, full, bitfit or head."
        )
    if to == PEFT and gguf_header.is_file(settings.model.weights):
        _check_gguf(settings.model.weights)
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty; name a new folder.")


def _check_gguf(weights: str) -> None:
    """Raises ValueError where transformers, and so PEFT, does not read a GGUF file."""
    architecture = gguf_header.read(paths.place(weights)).architecture
    if architecture not in gguf_config.READ_BY_TRANSFORMERS:
        raise ValueError(
            f"The weights are {weights}, a GGUF file of {architecture!r}, which transformers does "
            "not read, so that PEFT cannot be put on it; use it as a whole model, "
            "--to=transformers."
        )


def _base(weights: str) -> tuple[str, str]:
    """What `from_pretrained` is given to open public weights, and further arguments, as code."""
    if not gguf_header.is_file(weights):
        return weights, ""
    file = paths.place(weights)
    return str(file.parent), f', gguf_file="{file.name}"'


def _head(tuned: Tuned) -> HubHead | None:
    """The head of a model that has one, in regression in the user's unit."""
    model = tuned.parts.model
    if not isinstance(model, Headed):
        return None
    params: Params = jax.device_get(tuned.trainable["head"])
    if tuned.parts.settings.kind == REGRESSION:
        low, high = tuned.parts.settings.data.range
        params = {
            **params,
            "kernel": params["kernel"] * (high - low),
            "bias": low + params["bias"] * (high - low),
        }
    return hub_head.of_head(tuned.parts.backbone, model.head, params)


def _plain(params: Params) -> Params:
    """Parameters as arrays of the host, low-rank updates added up; these make all float32."""

    def is_kernel(leaf: Any) -> bool:
        return isinstance(leaf, LowRankKernel)

    params = quantised.widened(params)
    leaves = jax.tree.leaves(params, is_leaf=is_kernel)
    has_updates = any(map(is_kernel, leaves))

    def plain(leaf: Any) -> np.ndarray:
        if isinstance(leaf, LowRankKernel):
            return leaf.merged()
        return np.asarray(leaf, np.float32) if has_updates else np.asarray(leaf)

    return jax.tree.map(plain, params, is_leaf=is_kernel)


def _opens(tuned: Tuned, to: str, labels: tuple[Any, ...]) -> str:
    """Python code that opens the folder."""
    settings = tuned.parts.settings
    name = "AutoModelForCausalLM"
    base, more = _base(settings.model.weights) if to == PEFT else ("FOLDER", "")
    given = f'"{base}"{more}'
    if settings.kind != GENERATION:
        name = "AutoModelForSequenceClassification"
        if to == PEFT:
            names = {i: str(label) for i, label in enumerate(labels)} or {0: "value"}
            pad = tuned.parts.codec.info.pad_id
            given += f", id2label={names}, pad_token_id={pad}"
    lines = [f"from transformers import {name}", f"model = {name}.from_pretrained({given})"]
    if to == PEFT:
        lines = ["from peft import PeftModel", *lines]
        lines.append('model = PeftModel.from_pretrained(model, "FOLDER")')
    return "\n".join(lines) + "\n"
