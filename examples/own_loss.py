"""The private gradient alone, around models of your own, in an optax loop with accounting.

    python examples/own_loss.py

Three models of the same rows: one of Flax linen and one of Flax nnx with their stock layers, whose
per-example gradients `jax.vmap` makes; and one of linen with the layers of this library, whose
per-example norms are taken without per-example gradients (engine "ghost").

Axes: N rows, D features.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax import nnx

from memarc.models import layers
from memarc.privacy import engines, noise, sampling
from memarc.privacy.mechanism import Mechanism, PrivacyConfig

N, D = 2000, 5
RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(N, D)).astype(np.float32)  # [N, D]
TARGETS = np.tanh(FEATURES @ [2.0, -1.0, 1.0, 0.0, 0.0]).astype(np.float32)  # [N]

# Sampling, clipping, noise and accounting from one promise: they cannot disagree.
MECHANISM = Mechanism.create(
    PrivacyConfig(epsilon=4.0, delta=1e-5, clip_norm=0.5, expected_batch_size=250),
    num_examples=N,
    steps=40,
    unit="one row",
)


ROWS = {"x": jnp.asarray(FEATURES), "y": jnp.asarray(TARGETS)}


def left_out(streams: sampling.Streams, step: int) -> np.ndarray:
    """bool[N]: the rows that a step's Poisson draw leaves out.

    Every step sees all rows and silences those that were not drawn, so no shape tells how many
    were. Larger sets are cut into batches of one size (`memarc.data.dataset.padded_chunks`).
    """
    is_left_out = np.ones(N, bool)  # In host memory: a program by the draw's size would tell it.
    is_left_out[MECHANISM.sample(streams, step)] = False
    return is_left_out


def train_by_vmap(
    loss: Callable[[Any, dict[str, jax.Array]], jax.Array], params: Any, streams: sampling.Streams
) -> float:
    """Per-example gradients by `jax.vmap`, clipped and noised by one optax transform.

    ``loss(params, row)`` is of one row, and ``params`` any tree.
    """
    optimizer = optax.chain(
        noise.privatize_per_example(
            clipping=MECHANISM.clipping,
            stddev=MECHANISM.noise_stddev,
            divisor=MECHANISM.divisor,
            key=streams.noise,
        ),
        optax.adam(3e-2),
    )
    state = optimizer.init(params)

    @jax.jit
    def update(params, state, is_left_out):
        gradients = jax.vmap(jax.grad(loss), in_axes=(None, 0))(params, ROWS)  # [N, ...]
        updates, state = optimizer.update(gradients, state, params, is_padding=is_left_out)
        return optax.apply_updates(params, updates), state

    for step in range(MECHANISM.steps):
        params, state = update(params, state, left_out(streams, step))
    return mean_loss(lambda row: loss(params, row))


class Mlp(nn.Module):
    """A linen model with stock layers."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps one row [D] to a number."""
        return nn.Dense(1)(nn.tanh(nn.Dense(16)(x)))[0]


def train_linen(streams: sampling.Streams) -> float:
    """A linen model: its parameters are a tree, and its loss a function of them."""
    model = Mlp()

    def loss(params, row):
        return (model.apply(params, row["x"]) - row["y"]) ** 2

    return train_by_vmap(loss, model.init(streams.initialisation, jnp.zeros(D)), streams)


def train_nnx(streams: sampling.Streams) -> float:
    """An nnx model: split it, and its parameters are a tree as any other."""
    module = nnx.Sequential(
        nnx.Linear(D, 16, rngs=nnx.Rngs(0)), nnx.tanh, nnx.Linear(16, 1, rngs=nnx.Rngs(1))
    )
    graph, params = nnx.split(module, nnx.Param)

    def loss(params, row):
        return (nnx.merge(graph, params)(row["x"])[0] - row["y"]) ** 2

    return train_by_vmap(loss, params, streams)


class TappedMlp(nn.Module):
    """A linen model with layers whose per-example norms the engines can take from outside."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [N, D] to [N]."""
        hidden = nn.tanh(layers.Dense(D, 16, name="inner")(x))
        return layers.Dense(16, 1, name="outer")(hidden)[:, 0]


def train_ghost(streams: sampling.Streams) -> float:
    """Clipped sums by the engine "ghost"; noise and division by the mechanism's transform."""
    model = TappedMlp()
    params = model.init(streams.initialisation, jnp.zeros((1, D)))["params"]

    def losses(params, frozen, batch):  # [N]: one loss a row, none coupled to another.
        return (layers.apply(model, params, batch["x"]) - batch["y"]) ** 2

    optimizer = optax.chain(MECHANISM.gradient_transform(streams.noise), optax.adam(3e-2))
    state = optimizer.init(params)

    @jax.jit
    def update(params, state, is_left_out):
        total, _ = engines.clipped_grad_sum(
            losses,
            params,
            {},
            ROWS,
            is_left_out,
            clipping=MECHANISM.clipping,
            engine="ghost",
            microbatch_size=N // 8,
        )
        updates, state = optimizer.update(total, state, params)
        return optax.apply_updates(params, updates), state

    for step in range(MECHANISM.steps):
        params, state = update(params, state, left_out(streams, step))
    return mean_loss(lambda row: losses(params, {}, jax.tree.map(lambda x: x[None], row))[0])


def mean_loss(loss: Callable[[dict[str, jax.Array]], jax.Array]) -> float:
    """The mean loss of all rows (of private rows it would be one more release)."""
    return float(jax.vmap(loss)(ROWS).mean())


def main() -> None:
    """Trains all three, each with fresh entropy from the operating system."""
    for train in (train_linen, train_nnx, train_ghost):
        streams = sampling.streams(sampling.fresh_entropy())
        print(
            f"{train.__name__}: mean loss {train(streams):.3f}, of a constant {TARGETS.var():.3f}"
        )
    spent = MECHANISM.spent(MECHANISM.steps)
    print(
        f"Each spends epsilon {spent.epsilon:.3f} at delta {spent.delta:g}, by {spent.accountant}."
    )


if __name__ == "__main__":
    main()
