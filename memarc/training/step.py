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

from memarc.privacy import summation, zeroth_order
from memarc.privacy.clipping import Clipping, wide_dtype
from memarc.privacy.engines import add_clipped
from memarc.privacy.summation import CompensatedSum
from memarc.privacy.zeroth_order import Directions, Line
from memarc.typing import Array, Batch, LossFn, Params, Precompute


@flax.struct.dataclass
class TrainState:
    """What a checkpoint holds; it is secret, as the noise key is in it.

    Attributes:
      step: The number of updates made so far, int32[].
      trainable: The parameters.
      noise_state: The state of the mechanism's transformation.
      opt_state: The state of the optimizer, built from noised gradients only.
      directions: None, or the directions along which slopes stand for gradients.
    """

    step: Array
    trainable: Params
    noise_state: optax.OptState
    opt_state: optax.OptState
    directions: Directions | None = None

    @property
    def point(self) -> Params | Line:
        """Where rows are differentiated: at the parameters, or on the step's line through them."""
        if self.directions is None:
            return self.trainable
        return Line(self.trainable, self.directions, self.step)

    @property
    def summed(self) -> Params:
        """Something shaped like what a step sums and noises."""
        return zeroth_order.summed(self.point)


@dataclasses.dataclass(frozen=True)
class GradientSettings:
    """How clipped sums are computed; all but ``clipping`` changes memory and speed only.

    Attributes:
      clipping: The rule and its bound.
      engine: A name in `memarc.privacy.engines.ENGINES`; or "zeroth_order", of a
        state with directions, which sums slopes instead.
      microbatch_size: Rows differentiated at once.
    """

    clipping: Clipping
    engine: str
    microbatch_size: int


def init_state(
    trainable: Params,
    privatize: optax.GradientTransformation,
    optimizer: optax.GradientTransformation,
    directions: Directions | None = None,
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
        directions=jax.tree.map(jnp.copy, directions),
    )


def make_accumulate(
    loss_fn: LossFn, precompute: Precompute, settings: GradientSettings
) -> Callable[[CompensatedSum, Params, Params, Batch, Array], CompensatedSum]:
    """Builds ``(grad_sum, point, frozen, batch, is_padding[B]) -> grad_sum``.

    ``point`` is a state's, and sums are shaped like its ``summed``.

    Norms and losses of the rows are private and do not leave the function.
    """

    def accumulate(
        grad_sum: CompensatedSum,
        point: Params | Line,
        frozen: Params,
        batch: Batch,
        is_padding: Array,
    ) -> CompensatedSum:
        if isinstance(point, Line) != (settings.engine == zeroth_order.NAME):
            raise ValueError(
                f"The engine is {settings.engine!r}, and the parameters come "
                f"{'with' if isinstance(point, Line) else 'without'} directions; "
                f"{zeroth_order.NAME!r} needs them, and no other engine takes them."
            )
        loss, prepare, trainable, given = zeroth_order.differentiated(
            loss_fn, precompute, point, frozen
        )
        total, _ = add_clipped(
            grad_sum,
            loss,
            trainable,
            given,
            batch,
            is_padding,
            clipping=settings.clipping,
            engine=zeroth_order.row_engine(settings.engine),
            microbatch_size=settings.microbatch_size,
            precompute=prepare,
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
        gradient = zeroth_order.lifted(gradient, state.point)
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
            directions=state.directions,
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
        grad_sum = zeros(state.summed)
        grad_sum = accumulate(grad_sum, state.point, frozen, batch, is_padding)
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
            return jnp.sum(jnp.where(is_padding, 0.0, losses)) / jnp.sum(
                ~is_padding, dtype=losses.dtype
            )

        gradient = jax.grad(mean_loss)(state.trainable)
        no_noise = optax.GradientTransformation(optax.identity().init, _rounded)
        return make_update(no_noise, optimizer)(
            state, summation.add(summation.zero(gradient), gradient)
        )

    return plain_step
