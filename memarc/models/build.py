"""Builds a classifier from a backbone and a tuning method; holds the one list of methods."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from memarc.models import adapter, head, lora, reversible, side, subset
from memarc.models.config import BackboneConfig
from memarc.models.head import HeadConfig
from memarc.models.tuning import Tuning
from memarc.typing import Array, Batch, LossFn, Params, Precompute

# Name -> (dataclass of options, function that makes the `Tuning`).
METHODS = {
    "full": (subset.SubsetOptions, subset.full),
    "head": (subset.SubsetOptions, subset.head),
    "bitfit": (subset.SubsetOptions, subset.bitfit),
    "lora": (lora.LoraOptions, lora.lora),
    "adapter": (adapter.AdapterOptions, adapter.adapter),
    "side": (side.SideOptions, side.side),
    "reversible": (reversible.ReversibleOptions, reversible.reversible),
}


@dataclasses.dataclass(frozen=True)
class Model:
    """A classifier as pure functions (contracts: `memarc.typing`).

    Attributes:
      init: ``(key, backbone_params) -> (trainable, frozen)``; consumes the given parameters.
      precompute: The part of the forward pass that no gradient crosses.
      logits: ``(trainable, frozen, precomputed batch) -> float32[B, C]``.
      loss: ``(trainable, frozen, precomputed batch) -> float32[B]``, nats per example.
      check_start: ``(trainable, frozen)``: raises ValueError if the network cannot work on random
        tokens, which are public.
      needs_coins: As of `Tuning`.
    """

    init: Callable[[Array, Params], tuple[Params, Params]]
    precompute: Precompute
    logits: Callable[[Params, Params, Batch], Array]
    loss: LossFn
    check_start: Callable[[Params, Params], None]
    needs_coins: bool


def build(
    method: str, options: Mapping[str, Any], config: BackboneConfig, head_config: HeadConfig
) -> Model:
    """Builds the classifier of a tuning method.

    Args:
      method: A name of `METHODS`.
      options: Fields of the method's options dataclass; those left out keep its defaults.
      config: Sizes of the backbone.
      head_config: The classification head.

    Returns:
      The model.

    Raises:
      ValueError: For an unknown method or option, naming the choices, or a decoder.
    """
    if config.parts.is_decoder:
        raise ValueError(f"A {config.kind} backbone is a decoder; classification needs an encoder.")
    tuning = make_tuning(method, options, config)

    def init(key, params):
        tuning_key, head_key = jax.random.split(key)
        trainable, frozen = tuning.init(tuning_key, params)
        start = head.init(head_config, config.width, head_key)
        return {"tuning": trainable, "head": start}, frozen

    def logits(trainable, frozen, batch):
        states = tuning.states(trainable["tuning"], frozen, batch)
        return head.logits(head_config, trainable["head"], states, batch)

    def loss(trainable, frozen, batch):
        return head.cross_entropy(logits(trainable, frozen, batch), batch["labels"])

    def check(trainable, frozen):
        check_start(tuning, config, trainable["tuning"], frozen)

    return Model(init, tuning.precompute, logits, loss, check, tuning.needs_coins)


def make_tuning(method: str, options: Mapping[str, Any], config: BackboneConfig) -> Tuning:
    """Makes a method by name.

    Args:
      method: A name of `METHODS`.
      options: Fields of the method's options dataclass; those left out keep its defaults.
      config: Sizes of the backbone.

    Raises:
      ValueError: For an unknown method or option, naming the choices.
    """
    if method not in METHODS:
        raise ValueError(f"Unknown method {method!r}; choose one of {list(METHODS)}.")
    options_class, make = METHODS[method]
    fields = [field.name for field in dataclasses.fields(options_class)]
    unknown = sorted(set(options) - set(fields))
    if unknown:
        raise ValueError(f"Method {method!r} has no option {unknown}; its options are {fields}.")
    return make(config, options_class(**options))


def check_start(tuning: Tuning, config: BackboneConfig, trainable: Params, frozen: Params) -> None:
    """Raises ValueError if the network cannot work on two rows of random tokens."""
    if tuning.check is None:
        return
    shape = (2, min(16, config.longest_sequence))
    batch = {
        "input_ids": jax.random.randint(jax.random.key(0), shape, 0, config.vocab_size),
        "token_type_ids": jnp.zeros(shape, jnp.int32),
        "attention_mask": jnp.ones(shape, jnp.int32),
    }
    tuning.check(trainable, frozen, jax.jit(tuning.precompute)(frozen, batch))
