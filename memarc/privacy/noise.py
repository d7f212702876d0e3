"""Gaussian noise as optax transformations: noise the clipped sum, then divide by a public constant.

Everything is float32 until the end; the cast to the parameters' dtype is ``optax.apply_updates``'.
Limit: float32 normals reach about 5.4 standard deviations on a finite grid, so the guarantee is
that of the ideal mechanism and no defence against attacks on floating-point noise is claimed.

Axes: B batch.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from memarc.privacy.clipping import Clipping, clip_and_sum, wide_dtype
from memarc.privacy.summation import CompensatedSum
from memarc.typing import Array, Params

TOGETHER = 2**16
"""Neighbouring leaves of one dtype with so many numbers at most in all are parts of one draw."""


class GaussianNoiseState(NamedTuple):
    """What a checkpoint must hold so that resuming draws the same noise.

    Attributes:
      key: The root key, which never changes and is secret.
      num_updates: The number of updates made so far, int32[].
    """

    key: Array
    num_updates: Array


def key_from_words(words: Sequence[int]) -> Array:
    """Builds a typed threefry key from all its 64 bits (a seed below 2^32 fills only half of them).

    Args:
      words: Two integers in [0, 2^32), such as `memarc.privacy.sampling.streams` draws.

    Returns:
      A scalar typed key.

    Raises:
      ValueError: If there are not two such words.
    """
    if len(words) != 2 or not all(0 <= word < 2**32 for word in words):
        raise ValueError("A key takes two words, each at least 0 and below 2**32.")
    return jax.random.wrap_key_data(jnp.asarray(words, jnp.uint32), impl="threefry2x32")


def normals(key: Array, leaves: Sequence[Array]) -> list[Array]:
    """Draws an array of standard normals for each of some arrays, in float32 or wider.

    Small neighbours are parts of one draw, as each draw is a program to compile. A leaf of more
    than `TOGETHER` numbers has its own and is never copied.

    Args:
      key: A scalar typed key.
      leaves: Arrays, or whatever has a shape, a size and a dtype.

    Returns:
      As many arrays of the same shapes, a pure function of the key and of the leaves' shapes and
      dtypes in their order.
    """
    drawn = []
    for number, group in enumerate(_neighbours(leaves)):
        group_key = jax.random.fold_in(key, number)
        sizes = [leaf.size for leaf in group]
        shape = (sum(sizes),) if len(group) > 1 else group[0].shape
        normal = jax.random.normal(group_key, shape, wide_dtype(group[0]))
        parts = jnp.split(normal, np.cumsum(sizes)[:-1]) if len(group) > 1 else [normal]
        drawn += [part.reshape(leaf.shape) for part, leaf in zip(parts, group, strict=True)]
    return drawn


def add_gaussian_noise(stddev: float, key: Array) -> optax.GradientTransformation:
    """Adds N(0, stddev^2) to every entry of an already clipped sum, in float32 or wider.

    Of a `memarc.privacy.summation.CompensatedSum` the noise meets both parts before they are one:
    what rounds the sum of thousands of rows then rounds a noised value, which is free.

    The noise of update k is a pure function of ``key``, k and the shapes and dtypes of the tree's
    leaves (`normals`), so a resumed run draws what the uninterrupted one would have drawn.
    Rescale only afterwards, which is free; rescaling before voids the guarantee.

    Args:
      stddev: Standard deviation in gradient units, noise multiplier times clip norm; 0 is allowed
        (epsilon = infinity: same code, no noise).
      key: Scalar typed key, explicit; there is no default.

    Returns:
      A transformation whose state is a ``GaussianNoiseState``.

    Raises:
      ValueError: If ``stddev`` is negative or not finite, or ``key`` is not a scalar typed key.
    """
    if not (math.isfinite(stddev) and stddev >= 0):
        raise ValueError(f"stddev is {stddev}; give a finite number, at least 0.")
    _check_key(key)

    def init_fn(params: Params) -> GaussianNoiseState:
        del params
        # A copy, because a train step may donate its state and the caller keeps the key.
        return GaussianNoiseState(key=jnp.copy(key), num_updates=jnp.zeros((), jnp.int32))

    def update_fn(
        updates: Params, state: GaussianNoiseState, params: Params | None = None
    ) -> tuple[Params, GaussianNoiseState]:
        del params
        step_key = jax.random.fold_in(state.key, state.num_updates)
        total, lost = updates if isinstance(updates, CompensatedSum) else (updates, None)
        leaves, treedef = jax.tree.flatten(total)
        rests = jax.tree.leaves(lost) or [None] * len(leaves)
        noised = []
        for leaf, rest, normal in zip(leaves, rests, normals(step_key, leaves), strict=True):
            noise = stddev * normal
            noised.append(leaf.astype(noise.dtype) + (noise if rest is None else rest + noise))
        # Saturates at 2^31 - 1 instead of wrapping round to noise that was already used.
        return treedef.unflatten(noised), state._replace(
            num_updates=optax.safe_increment(state.num_updates)
        )

    # Optax's type of all states does not know this one.
    return optax.GradientTransformation(init_fn, update_fn)  # pyright: ignore[reportArgumentType]


def divide_by(constant: float) -> optax.GradientTransformation:
    """Divides every entry by a public constant, such as the expected batch size of the plan.

    Args:
      constant: A Python number, so that no size of a drawn batch can get in as an array.

    Returns:
      A stateless transformation; float32 or wider out.

    Raises:
      ValueError: If ``constant`` is not a positive finite Python number.
    """
    if not isinstance(constant, int | float) or not (math.isfinite(constant) and constant > 0):
        raise ValueError(
            f"The divisor is {constant!r}; give a positive finite Python number from the public "
            "plan, never the size of a drawn batch."
        )

    def divide(leaf: Array) -> Array:
        return leaf.astype(wide_dtype(leaf)) / constant

    return optax.stateless(lambda updates, params: jax.tree.map(divide, updates))


def privatize_sum(*, stddev: float, divisor: float, key: Array) -> optax.GradientTransformation:
    """Turns an already clipped sum into a private mean gradient: noise once, then divide.

    Call ``update`` once per optimizer step, on the sum over all microbatches.

    Args:
      stddev: Standard deviation of the noise on the sum, gradient units (`add_gaussian_noise`).
      divisor: The public constant that divides the noised sum (`divide_by`).
      key: Scalar typed key of the noise.

    Returns:
      A transformation to chain in front of any optax optimizer.
    """
    return optax.chain(add_gaussian_noise(stddev, key), divide_by(divisor))


def privatize_per_example(
    *, clipping: Clipping, stddev: float, divisor: float, key: Array
) -> optax.GradientTransformationExtraArgs:
    """Turns per-example gradients into a private mean gradient: clip, sum, noise, divide.

    ``update(gradients, state, params, is_padding=...)`` takes leaves [B, ...] and an optional
    bool[B] mask; padding and non-finite rows add exactly zero.

    Args:
      clipping: The rule and its bound.
      stddev: Standard deviation of the noise on the sum, gradient units (`add_gaussian_noise`).
      divisor: The public constant that divides the noised sum: the expected batch size, not B.
      key: Scalar typed key of the noise.

    Returns:
      A transformation to chain in front of any optax optimizer.

    >>> gradients = {"w": jnp.array([[3.0, 4.0], [0.0, 0.5]])}  # Norms 5 and 0.5.
    >>> private = privatize_per_example(
    ...     clipping=Clipping(clip_norm=1.0), stddev=0.0, divisor=2, key=jax.random.key(0))
    >>> mean, _ = private.update(gradients, private.init({"w": jnp.zeros(2)}))
    >>> [round(x, 3) for x in mean["w"].tolist()]
    [0.3, 0.65]
    """
    privatize = privatize_sum(stddev=stddev, divisor=divisor, key=key)

    def update_fn(
        updates: Params,
        state: optax.OptState,
        params: Params | None = None,
        *,
        is_padding: Array | None = None,
        **extra_args: Any,
    ) -> tuple[Params, optax.OptState]:
        del extra_args
        rows = jax.tree.leaves(updates)[0].shape[:1]
        is_kept = jnp.ones(rows, jnp.bool_) if is_padding is None else ~is_padding
        grad_sum, _, _ = clip_and_sum(updates, is_kept, clipping)
        return privatize.update(grad_sum, state, params)

    return optax.GradientTransformationExtraArgs(privatize.init, update_fn)


def _neighbours(leaves: Sequence[Array]) -> list[list[Array]]:
    """Cuts a list into groups of one dtype, each one leaf or `TOGETHER` numbers at most."""
    groups: list[list[Array]] = []
    for leaf in leaves:
        group = groups[-1] if groups else []
        is_small = sum(other.size for other in group) + leaf.size <= TOGETHER
        if group and is_small and wide_dtype(group[0]) == wide_dtype(leaf):
            group.append(leaf)
        else:
            groups.append([leaf])
    return groups


def _check_key(key: Array) -> None:
    """Raises ValueError unless ``key`` is one typed key."""
    is_typed = isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    if not is_typed or key.shape != ():
        # The value is left out of the message: a key is a secret.
        raise ValueError(
            "Noise needs one scalar typed key, such as streams(entropy).noise of "
            "memarc.privacy.sampling, or jax.random.key; there is no default key."
        )
