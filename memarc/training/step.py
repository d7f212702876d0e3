"""The private training step as two pure functions: add a batch to the clipped sum, then update.

A Poisson draw has any size, so a step adds fixed-shape batches to a running sum as often as the
draw needs, then noises, divides and updates once. No compiled program depends on the draw.

Axes: B rows of a batch.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from memarc.privacy import summation
from memarc.privacy.clipping import Clipping, wide_dtype
from memarc.privacy.engines import add_clipped
from memarc.privacy.summation import CompensatedSum
from memarc.typing import Array, Batch, LossFn, Params, Precompute


@flax.struct.dataclass
class TrainState:
    """What a checkpoint holds; it is secret, as the noise key is in it.

    Attributes:
      step: The number of updates made so far, int32[].
      trainable: The parameters.
      noise_state: The state of the mechanism's transformation.
      opt_state: The state of the optimizer, built from noised gradients only.
    """

    step: Array
    trainable: Params
    noise_state: optax.OptState
    opt_state: optax.OptState


@dataclasses.dataclass(frozen=True)
class GradientSettings:
    """How clipped sums are computed; all but ``clipping`` changes memory and speed only.

    Attributes:
      clipping: The rule and its bound.
      engine: A name in `memarc.privacy.engines.ENGINES`.
      microbatch_size: Rows differentiated at once.
    """

    clipping: Clipping
    engine: str
    microbatch_size: int


def init_state(
    trainable: Params,
    privatize: optax.GradientTransformation,
    optimizer: optax.GradientTransformation,
) -> TrainState:
    """The state before the first update."""
    # Copies, because the state is donated and the caller may share its arrays; and float32, because
    # small updates would be lost in bfloat16.
    trainable = jax.tree.map(lambda x: jnp.array(x, wide_dtype(x), copy=True), trainable)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        trainable=trainable,
        noise_state=privatize.init(trainable),
        opt_state=optimizer.init(trainable),
    )


def make_accumulate(
    loss_fn: LossFn, precompute: Precompute, settings: GradientSettings
) -> Callable[[CompensatedSum, Params, Params, Batch, Array], CompensatedSum]:
    """Builds ``(grad_sum, trainable, frozen, batch, is_padding[B]) -> grad_sum``.

    Norms and losses of the rows are private and do not leave the function.
    """

    def accumulate(
        grad_sum: CompensatedSum,
        trainable: Params,
        frozen: Params,
        batch: Batch,
        is_padding: Array,
    ) -> CompensatedSum:
        total, _ = add_clipped(
            grad_sum,
            loss_fn,
            trainable,
            frozen,
            batch,
            is_padding,
            clipping=settings.clipping,
            engine=settings.engine,
            microbatch_size=settings.microbatch_size,
            precompute=precompute,
        )
        return total

    return accumulate


def make_update(
    privatize: optax.GradientTransformation, optimizer: optax.GradientTransformation
) -> Callable[[TrainState, CompensatedSum], tuple[TrainState, dict[str, Array]]]:
    """Builds ``(state, grad_sum) -> (state, metrics)``.

    The metrics are functions of noised values only, so they are free to publish:
    ``noised_gradient_norm`` (gradient units) and ``update_norm`` (parameter units).
    """

    def update(state: TrainState, grad_sum: CompensatedSum) -> tuple[TrainState, dict[str, Array]]:
        # Optax's types know trees of arrays alone; the noise is added to both parts of the sum.
        gradient, noise_state = privatize.update(grad_sum, state.noise_state)  # pyright: ignore
        with jax.numpy_dtype_promotion("standard"):  # Optax's own code mixes dtypes.
            updates, opt_state = optimizer.update(gradient, state.opt_state, state.trainable)
        metrics = {
            "noised_gradient_norm": optax.tree.norm(gradient),
            "update_norm": optax.tree.norm(updates),
        }
        return TrainState(
            step=state.step + 1,
            trainable=optax.apply_updates(state.trainable, updates),
            noise_state=noise_state,
            opt_state=opt_state,
        ), metrics

    return update


def make_private_step(
    accumulate: Callable[..., CompensatedSum],
    update: Callable[..., tuple[TrainState, dict[str, Array]]],
    zeros: Callable[[Params], CompensatedSum],
) -> Callable[..., tuple[TrainState, dict[str, Array]]]:
    """Builds ``(state, frozen, batch, is_padding[B]) -> (state, metrics)`` in one program.

    The program is a whole step whose draw fits one batch: what memory reports and benchmarks
    measure.

    Args:
      accumulate: What `make_accumulate` builds.
      update: What `make_update` builds.
      zeros: `memarc.privacy.summation.zero`, or that of a mesh.
    """

    def private_step(
        state: TrainState, frozen: Params, batch: Batch, is_padding: Array
    ) -> tuple[TrainState, dict[str, Array]]:
        grad_sum = zeros(state.trainable)
        grad_sum = accumulate(grad_sum, state.trainable, frozen, batch, is_padding)
        return update(state, grad_sum)

    return private_step


def _rounded(updates: Any, state: Any, params: Any = None) -> tuple[Params, Any]:
    """A `CompensatedSum` that gets no noise, in place of a mechanism's transformation."""
    del params
    return updates.value, state


def make_plain_step(
    loss_fn: LossFn, precompute: Precompute, optimizer: optax.GradientTransformation
) -> Callable[..., tuple[TrainState, dict[str, Array]]]:
    """Builds the same step without privacy: the mean loss's gradient, not clipped, not noised."""

    def plain_step(
        state: TrainState, frozen: Params, batch: Batch, is_padding: Array
    ) -> tuple[TrainState, dict[str, Array]]:
        prepared = jax.lax.stop_gradient(precompute(frozen, batch))

        def mean_loss(trainable: Params) -> Array:
            losses = loss_fn(trainable, frozen, prepared)
            return jnp.sum(jnp.where(is_padding, 0.0, losses)) / jnp.sum(~is_padding)

        gradient = jax.grad(mean_loss)(state.trainable)
        no_noise = optax.GradientTransformation(optax.identity().init, _rounded)
        return make_update(no_noise, optimizer)(
            state, summation.add(summation.zero(gradient), gradient)
        )

    return plain_step
