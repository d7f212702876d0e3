"""Names that all packages share: arrays, parameter trees, batches and the loss contract."""

from collections.abc import Callable, Mapping
from typing import Any

import jax

Array = jax.Array
PyTree = Any
Params = Any
"""A nested dict of arrays. Our own alias of Any: optax's recursive one drowns type checkers."""

Batch = Mapping[str, Any]
"""Arrays that all lead with the batch axis, [B, ...]."""

LossFn = Callable[[Params, Params, Batch], Array]
"""``(trainable, frozen, batch) -> float32[B]``: one loss in nats per example, none coupled."""

Precompute = Callable[[Params, Batch], Batch]
"""``(frozen, batch) -> batch``: work without a gradient, done batched before differentiation."""

Summed = tuple[Params, Array, Array]
"""A sum of clipped gradients, and norms [B] and losses [B], zero for rows that add nothing."""
