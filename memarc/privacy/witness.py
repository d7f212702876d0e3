"""What the steps of a run tell of canaries: likelihood ratios of noised gradients, added up.

A canary with a coordinate of its own adds the clip norm C to that coordinate of the sum whenever
it is drawn, and nothing else does. The coordinate of a noised sum, over C, is N(1, sigma^2) if the
canary was drawn and N(0, sigma^2) if not; a canary that is in is drawn with chance q. The sum over
steps of log(1 - q + q exp((2x - 1) / (2 sigma^2))) tells best whether it is in (Neyman, Pearson).

Axes: K canaries.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import optax

from memarc.typing import Array, Params

_LEAST_NOISE = 2.0**-6
"""The noise multiplier that ratios are computed for where there is less, or none."""


class WitnessState(NamedTuple):
    """What was seen so far; a function of noised values and of the plan alone.

    Attributes:
      log_ratios: float32[K]; higher where a canary seems to be in.
    """

    log_ratios: Array


def watch(
    coordinates: Callable[[Params], Array],
    *,
    scale: float,
    sampling_rate: float,
    noise_multiplier: float,
) -> optax.GradientTransformation:
    """Looks at private gradients and hands them on as they are.

    Args:
      coordinates: Takes the canaries' coordinates [K] out of a gradient.
      scale: What a canary adds to its coordinate when it is drawn: the clip norm over the divisor.
      sampling_rate: q.
      noise_multiplier: sigma, noise standard deviation over clip norm.

    Returns:
      A transformation whose state is a `WitnessState`; it stands after the noise.
    """
    variance = max(noise_multiplier, _LEAST_NOISE) ** 2
    with np.errstate(divide="ignore"):  # log(0), where every row is always drawn.
        log_left_out = float(np.log1p(-sampling_rate))

    def init_fn(params: Params) -> WitnessState:
        return WitnessState(jnp.zeros_like(coordinates(params), jnp.float32))

    def update_fn(
        updates: Params, state: WitnessState, params: Params | None = None
    ) -> tuple[Params, WitnessState]:
        del params
        x = coordinates(updates).astype(jnp.float32) / scale
        log_drawn = np.log(sampling_rate) + (2 * x - 1) / (2 * variance)
        return updates, WitnessState(state.log_ratios + jnp.logaddexp(log_left_out, log_drawn))

    # Optax's type of all states does not know this one.
    return optax.GradientTransformation(init_fn, update_fn)  # pyright: ignore[reportArgumentType]
