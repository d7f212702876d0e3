"""Training steps of stated sizes: what memory reports and benchmarks measure.

Axes: B batch, T tokens.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from memarc import batches
from memarc.models import backbone
from memarc.models.build import build
from memarc.models.classifier import Classifier
from memarc.models.config import BackboneConfig
from memarc.models.families.known import make_config
from memarc.models.head import HeadConfig
from memarc.models.language import LanguageConfig, LanguageModel
from memarc.models.methods import REMAT_SUFFIX, all_options
from memarc.models.pretrained import STORAGE_DTYPES
from memarc.ops import quantised
from memarc.ops.uses import Place, find_places
from memarc.privacy import summation, zeroth_order
from memarc.privacy.clipping import Clipping
from memarc.privacy.mechanism import PrivacyConfig
from memarc.privacy.noise import privatize_sum
from memarc.training import optimizer, step
from memarc.training.optimizer import OptimizerConfig
from memarc.training.sharding import Placement
from memarc.typing import Params, PyTree

_STEPS = 100  # Of the learning-rate schedule.


@dataclasses.dataclass(frozen=True)
class Case:
    """One step to measure.

    Attributes:
      method: A tuning method.
      backbone: Sizes, remat included.
      options: Options of the method; those left out have their defaults.
      head: An encoder's pooling and classes, or how a decoder's losses of tokens are computed.
      storage_dtype: How frozen weights are held, "float32", "bfloat16", "int8" or "int4".
      storage_block: How many inputs of a map share a scale in the last two.
      clipping: How the private step clips.
      noise_multiplier: The private step's noise over the clip norm.
      optimizer: The optimizer of both steps.
      batch_size: B.
      seq_len: T.
    """

    method: str
    backbone: BackboneConfig
    options: Mapping[str, Any]
    head: HeadConfig | LanguageConfig
    storage_dtype: str
    storage_block: int
    clipping: Clipping
    noise_multiplier: float
    optimizer: OptimizerConfig
    batch_size: int
    seq_len: int

    @property
    def label(self) -> str:
        """The method as the command line writes it."""
        return self.method + (REMAT_SUFFIX if self.backbone.remat == "layer" else "")

    @property
    def described(self) -> dict[str, Any]:
        """What a line of measurements says of the case."""
        return {
            "method": self.label,
            "layers": self.backbone.layers,
            "width": self.backbone.width,
            "dtype": self.backbone.dtype,
            "storage_dtype": self.storage_dtype,
            **(
                {"storage_block": self.storage_block}
                if self.storage_dtype in quantised.BITS
                else {}
            ),
            "clipping_scope": self.clipping.scope,
            "batch_size": self.batch_size,
            "seq_len": self.seq_len,
            "options": dict(self.options),
        }


def parse(
    config: Mapping[str, Any], label: str, *, batch_size: int, seq_len: int, layers: int | None
) -> Case:
    """One case of a config (configs/shapes.py).

    Args:
      config: Sizes, options, clipping, optimizer.
      label: A method, with `REMAT_SUFFIX` or without.
      batch_size: B.
      seq_len: T.
      layers: Instead of the config's; None keeps those.

    Raises:
      ValueError: For an unknown method, or sizes that do not go together.
    """
    if "backbone" not in config:
        raise ValueError("The config states no sizes; give one of configs/memory or configs/bench.")
    method = label.removesuffix(REMAT_SUFFIX)
    options = all_options(method, config["options"].get(method, {}))
    privacy = config["privacy"]
    sizes = config["backbone"] | ({} if layers is None else {"layers": layers})
    cfg = make_config(**sizes, remat="none" if label == method else "layer")
    if batch_size < 1 or not 1 <= seq_len <= cfg.longest_sequence:
        raise ValueError(
            f"batch_size is {batch_size} and seq_len {seq_len}; give at least 1, and at most "
            f"{cfg.longest_sequence} tokens."
        )
    choices = (*STORAGE_DTYPES, *quantised.BITS)
    if config["storage_dtype"] not in choices:
        raise ValueError(f"storage_dtype is {config['storage_dtype']!r}; choose one of {choices}.")
    return Case(
        method=method,
        backbone=cfg,
        options=options,
        head=_head(cfg, config["head"]),
        storage_dtype=config["storage_dtype"],
        storage_block=config["storage_block"],
        clipping=Clipping(privacy["clip_norm"], privacy["clipping"], privacy["clipping_scope"]),
        noise_multiplier=privacy["noise_multiplier"],
        optimizer=OptimizerConfig(**config["optimizer"]),
        batch_size=batch_size,
        seq_len=seq_len,
    )


def _head(cfg: BackboneConfig, plain: Mapping[str, Any]) -> HeadConfig | LanguageConfig:
    """The head of a kind of backbone."""
    return (LanguageConfig if cfg.parts.is_decoder else HeadConfig)(**plain)


def model_of(case: Case) -> Classifier | LanguageModel:
    """The model that a step trains."""
    return build(case.method, case.options, case.backbone, case.head)


def private_step(
    case: Case, engine: str, microbatch_size: int, placement: Placement | None = None
) -> Callable[..., Any]:
    """The whole private step ``(state, frozen, batch, is_padding) -> (state, metrics)``."""
    model = model_of(case)
    settings = step.GradientSettings(case.clipping, engine, microbatch_size)
    accumulate = step.make_accumulate(model.loss, model.precompute, settings)
    update = step.make_update(*transforms(case))
    if placement is None:
        return step.make_private_step(accumulate, update, summation.zero)
    return step.make_private_step(
        placement.accumulate(accumulate, abstract(case, engine)[1]),
        placement.update(update),
        placement.zero_sum,
    )


def plain_step(case: Case) -> Callable[..., Any]:
    """The same step without privacy."""
    model = model_of(case)
    return step.make_plain_step(model.loss, model.precompute, transforms(case)[1])


def draw(case: Case, engine: str, key: jax.Array) -> tuple[PyTree, ...]:
    """Random arguments of an engine's step: state, frozen weights, a batch without padding."""
    model = model_of(case)
    start, tune, tokens = jax.random.split(key, 3)
    trainable, frozen = model.init(tune, _weights(case, start))
    frozen = _held(case, frozen)
    batch = batches.random(
        model.kind,
        tokens,
        case.batch_size,
        case.seq_len,
        vocab_size=case.backbone.vocab_size,
        classes=case.head.classes if isinstance(case.head, HeadConfig) else 1,
    )
    if model.needs_coins:
        batch[batches.COINS] = jax.random.bits(tokens, (case.batch_size, 2), jnp.uint32)
    directions = (
        zeroth_order.Directions(tune, PrivacyConfig.probe) if engine == zeroth_order.NAME else None
    )
    state = step.init_state(trainable, *transforms(case), directions)
    return state, frozen, batch, jnp.zeros((case.batch_size,), bool)


def _weights(case: Case, key: jax.Array) -> Params:
    """Random weights of the backbone, held as the case says.

    Layers are drawn one after the other: a large model's are never all there in float32.
    """
    kinds = case.backbone.kind_of_layer[:1]
    one = dataclasses.replace(case.backbone, layers=1, kind_of_layer=kinds)

    def layer(key: jax.Array) -> Params:
        drawn = backbone.init(one, key)["layers"]
        if case.storage_dtype in quantised.BITS:
            drawn = quantised.in_blocks(drawn, case.storage_dtype, case.storage_block)
        return jax.tree.map(lambda x: x[0], _held(case, drawn))

    layers = jax.lax.map(layer, jax.random.split(key, case.backbone.layers))
    return {**_held(case, backbone.init(one, key)), "layers": layers}


def _held(case: Case, params: Params) -> Params:
    """Parameters in the dtype of storage; what is in blocks stays, and is beside the compute's."""
    kept_as = case.backbone.dtype if case.storage_dtype in quantised.BITS else case.storage_dtype
    return jax.tree.map(
        lambda x: x if quantised.is_quantised(x) else x.astype(kept_as),
        params,
        is_leaf=quantised.is_quantised,
    )


def abstract(case: Case, engine: str) -> tuple[PyTree, ...]:
    """The shapes of `draw`, of which nothing is allocated."""
    return jax.eval_shape(partial(draw, case, engine), jax.random.key(0))


def placed(
    case: Case, engine: str, devices: Sequence[Any], placement: Placement | None
) -> tuple[PyTree, ...]:
    """The shapes of `draw`, each with its place on the devices."""
    state, frozen, *rows = abstract(case, engine)
    if placement is None:
        one = jax.sharding.SingleDeviceSharding(devices[0])
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=one), (state, frozen, *rows)
        )
    return (
        placement.abstract_state(state),
        placement.abstract_frozen(frozen),
        *placement.abstract_rows(rows),
    )


def places(case: Case) -> list[Place]:
    """Where each trainable parameter is used, and how its norm is taken."""
    model = model_of(case)
    state, frozen, batch, _ = abstract(case, "ghost")
    prepared = jax.eval_shape(model.precompute, frozen, batch)
    return find_places(model.loss, state.trainable, frozen, prepared)


def transforms(
    case: Case,
) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
    """The transformations from clipped sum to private gradient, and from gradient to update."""
    stddev = case.noise_multiplier * case.clipping.sensitivity
    key = jax.random.key(0)  # A measured step trains nothing.
    return (
        privatize_sum(stddev=stddev, divisor=case.batch_size, key=key),
        optimizer.build(case.optimizer, _STEPS),
    )
