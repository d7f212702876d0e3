"""What a tuning method is: how parameters split, what needs no gradient, what the head reads."""

import dataclasses
from collections.abc import Callable

from memarc.models import backbone
from memarc.models.config import BackboneConfig
from memarc.typing import Array, Batch, Params, Precompute, PyTree

COINS = "coins"
"""Name, within a batch, of two fresh random words for each row, uint32[B, 2]."""


@dataclasses.dataclass(frozen=True)
class Tuning:
    """One way to tune a backbone, as pure functions.

    Attributes:
      init: ``(key, backbone_params) -> (trainable, frozen)``. Reads public weights only; it is
        given no data, so no start can depend on private rows (checklist 30).
      states: ``(trainable, frozen, batch) -> [B, T, D]``, the states that the head reads; the
        batch has been through ``precompute``.
      precompute: ``(frozen, batch) -> batch``, the part of the forward pass that no gradient
        crosses. It runs batched, outside differentiation.
      parameters: ``(trainable, frozen) -> params``, the backbone's parameters, of which a language
        model's head reads the last norm and the output table.
      extend: ``(trainable, frozen, tokens int32[B, T], start int32[B], cache) -> (states
        [B, T, D], cache)``: the states of new tokens, which stand in slots from ``start`` on;
        earlier ones are in the cache. Decoders only.
      empty_cache: ``(rows, slots) -> cache``; its leaves lead with [layers, rows].
      check: None, or ``(trainable, frozen, batch)``: raises ValueError if the network cannot work
        on a public batch, which has been through ``precompute``. It must never see a private one:
        raising would reveal it.
      needs_coins: Whether training batches must hold `COINS`; others never do.
    """

    init: Callable[[Array, Params], tuple[Params, Params]]
    states: Callable[[Params, Params, Batch], Array]
    precompute: Precompute
    parameters: Callable[[Params, Params], Params]
    extend: Callable[[Params, Params, Array, Array, PyTree], tuple[Array, PyTree]]
    empty_cache: Callable[[int, int], PyTree]
    check: Callable[[Params, Params, Batch], None] | None = None
    needs_coins: bool = False


def of_parameters(
    config: BackboneConfig,
    init: Callable[[Array, Params], tuple[Params, Params]],
    parameters: Callable[[Params, Params], Params],
) -> Tuning:
    """A method that runs the backbone itself, with other parameters or structured kernels.

    Args:
      config: Sizes.
      init: As of `Tuning`.
      parameters: As of `Tuning`; kernels may be structured.
    """

    def extend(trainable, frozen, tokens, start, cache):
        params = parameters(trainable, frozen)
        hidden = backbone.embed_more(config, params, tokens, start)
        last, _, cache = backbone.extend_layers(
            config, params["layers"], hidden, start, cache, lambda _, state: (), ()
        )
        return last, cache

    return Tuning(
        init=init,
        states=lambda trainable, frozen, batch: backbone.encode(
            config, parameters(trainable, frozen), batch
        ),
        precompute=lambda frozen, batch: batch,
        parameters=parameters,
        extend=extend,
        empty_cache=lambda rows, slots: backbone.empty_cache(config, config.layers, rows, slots),
    )
