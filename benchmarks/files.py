"""Writes what a peer reads, weights, rows and settings, and the sum that it should find.

A folder holds ``backbone/`` (as transformers opens it), ``trained.safetensors`` and
``start.safetensors`` (what is trained beside the backbone, named as `benchmarks.tensors` and as
memarc has it), ``batch.safetensors`` and ``job.json``. Everything is drawn from the public seed 0.

Axes: B rows, T tokens.
"""

import dataclasses
import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors.numpy
from flax import traverse_util

from benchmarks import tensors, workloads
from memarc import batches
from memarc.measure import case as cases
from memarc.measure.case import Case
from memarc.models import backbone, pretrained
from memarc.privacy.clipping import Clipping
from memarc.typing import Batch, Params

JOB, BATCH, BACKBONE, TRAINED, START = (
    "job.json",
    "batch.safetensors",
    "backbone",
    "trained.safetensors",
    "start.safetensors",
)
WANTED = "wanted.safetensors"

_SPREAD = 0.05
"""Standard deviation of what is added to parameters that start at zero or at one."""


def write_timed(name: str, label: str, folder: Path, is_small: bool) -> None:
    """Writes the case that is timed: to be called in a fresh process.

    Args:
      name: A workload.
      label: A method.
      folder: Made if absent.
      is_small: Sizes of the check, in the workload's dtype.
    """
    jax.config.update("jax_platforms", "cpu")  # An accelerator is the peers'.
    case = workloads.make_case(name, label, is_small=is_small)
    drawn = _drawn(case, is_check=False)
    _write(case, *drawn, folder, workload=name, label=label, is_small=is_small, is_check=False)


def write_check(name: str, label: str, folder: Path) -> None:
    """Writes the small case in float32, and its sum by a loop in float64: in a fresh process.

    Args:
      name: A workload.
      label: A method.
      folder: Made if absent.
    """
    jax.config.update("jax_platforms", "cpu")
    case = workloads.make_case(name, label, is_small=True, dtype="float32")
    trainable, frozen, batch = _drawn(case, is_check=True)
    wanted, clip_norm = _reference(case, trainable, frozen, batch)
    clipped = dataclasses.replace(case, clipping=Clipping(clip_norm))
    drawn = trainable, frozen, batch
    _write(clipped, *drawn, folder, workload=name, label=label, is_small=True, is_check=True)
    safetensors.numpy.save_file(tensors.flat(case, wanted), folder / WANTED)


def _drawn(case: Case, *, is_check: bool) -> tuple[Params, Params, Batch]:
    """Trainable and frozen parameters and a batch, in host memory."""
    model = cases.model_of(case)
    dtype = "float32" if case.method == "full" else case.storage_dtype

    @partial(jax.jit, static_argnums=0)
    def draw(all_move: bool, key: jax.Array) -> tuple[Params, Params]:
        start, tune, move = jax.random.split(key, 3)
        params = backbone.init(case.backbone, start)
        if all_move:  # A bias that is put elsewhere would not show while all are zero.
            params = _moved(params, start)
        params = jax.tree.map(lambda x: x.astype(dtype), params)
        trainable, frozen = model.init(tune, params)
        if case.method != "full":
            trainable = _moved(trainable, move)  # Else the factors "a" would have no gradient.
        elif "head" in trainable:
            trainable = {**trainable, "head": _moved(trainable["head"], move)}
        return trainable, frozen

    trainable, frozen = jax.device_get(draw(is_check, jax.random.key(0)))
    batch = batches.random(
        model.kind,
        jax.random.key(1),
        case.batch_size,
        case.seq_len,
        vocab_size=case.backbone.vocab_size,
    )
    batch = {key: np.array(x) for key, x in batch.items()}
    return trainable, frozen, _padded(case, batch) if is_check else batch


def _moved(tree: Params, key: jax.Array) -> Params:
    """A tree with normal values added to each leaf."""
    leaves, shape = jax.tree.flatten(tree)
    keys = jax.random.split(key, len(leaves))
    return shape.unflatten(
        x + _SPREAD * jax.random.normal(k, x.shape, x.dtype)
        for x, k in zip(leaves, keys, strict=True)
    )


def _padded(case: Case, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The batch with rows of different lengths, each after the first one token shorter."""
    for row in range(1, case.batch_size):
        for key, filler in (
            (batches.INPUT_IDS, case.backbone.pad_id or 0),
            (batches.ATTENTION_MASK, 0),
            (batches.IS_TARGET, 0),
        ):
            if key in batch:
                batch[key][row, case.seq_len - row :] = filler
    return batch


def _reference(case: Case, trainable: Params, frozen: Params, batch: Batch) -> tuple[Params, float]:
    """The clipped sum by a loop over rows in float64, and the clip norm.

    The norm stands between the second and the third smallest of the rows' own, so that two rows are
    whole and the others are clipped.
    """
    with jax.enable_x64(True):
        model = cases.model_of(
            dataclasses.replace(case, backbone=dataclasses.replace(case.backbone, dtype="float64"))
        )
        both = jax.tree.map(lambda x: np.asarray(x, np.float64), (trainable, frozen))

        def loss(trainable: Params, frozen: Params, one: Batch) -> jax.Array:
            return model.loss(trainable, frozen, model.precompute(frozen, one))[0]

        gradient = jax.jit(jax.grad(loss))
        rows = [
            jax.device_get(gradient(*both, {key: x[i : i + 1] for key, x in batch.items()}))
            for i in range(case.batch_size)
        ]
    norms = [math.sqrt(sum(np.sum(x**2) for x in jax.tree.leaves(row))) for row in rows]
    clip_norm = math.sqrt(sorted(norms)[1] * sorted(norms)[2])
    factors = [min(1.0, clip_norm / norm) for norm in norms]
    total = jax.tree.map(lambda *xs: sum(f * x for f, x in zip(factors, xs, strict=True)), *rows)
    return total, clip_norm


def _backbone_of(trainable: Params, frozen: Params) -> Params:
    """The backbone's parameters, wherever a method has them."""
    return frozen["backbone"] or trainable["tuning"]


def _write(
    case: Case, trainable: Params, frozen: Params, batch: Batch, folder: Path, **settings: Any
) -> None:
    """Writes a folder; ``settings`` are further fields of its job."""
    pretrained.save(folder / BACKBONE, case.backbone, _backbone_of(trainable, frozen))
    beside = trainable if case.method != "full" else {**trainable, "tuning": {}}
    named = tensors.flat(case, trainable)
    if case.method == "full":
        named = {key: x for key, x in named.items() if not key.startswith(tensors.PREFIX)}
    safetensors.numpy.save_file(named, folder / TRAINED)
    leaves: dict[Any, Any] = dict(traverse_util.flatten_dict(beside))
    flat = {"/".join(path): np.asarray(x) for path, x in leaves.items()}
    safetensors.numpy.save_file(flat, folder / START)
    safetensors.numpy.save_file(dict(batch), folder / BATCH)
    low_rank = case.method == "lora"
    job = {
        "method": case.method,
        "remat": case.backbone.remat,
        "kind": cases.model_of(case).kind,
        "dtype": case.backbone.dtype,
        "scale": case.options["alpha"] / case.options["rank"] if low_rank else None,
        "rank": case.options["rank"] if low_rank else None,
        "clip_norm": case.clipping.clip_norm,
        "noise_multiplier": case.noise_multiplier,
        "learning_rate": case.optimizer.learning_rate,
        "rows": case.batch_size,
        "tokens": case.seq_len,
        **settings,
    }
    (folder / JOB).write_text(json.dumps(job, indent=2) + "\n", encoding="utf-8")
