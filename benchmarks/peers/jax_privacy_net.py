"""JAX Privacy's clipped gradients and noise, on memarc's model and with its optimizer."""

from collections.abc import Callable
from typing import Any

import jax
import jax_privacy.clipping
import jax_privacy.noise_addition
import numpy as np
import optax

from benchmarks.peers import jax_net
from benchmarks.peers.job import Ask, Job
from memarc.measure import case as cases
from memarc.measure.case import Case
from memarc.typing import Array, Batch, Params

DISTRIBUTIONS = ("jax-privacy", "jax", "jaxlib", "memarc", "numpy")
device, meter, plain = jax_net.device, jax_net.meter, jax_net.plain


def clipped_sum(job: Job, ask: Ask) -> dict[str, np.ndarray]:
    """The sum before noise."""
    case, given = jax_net.load(job)
    with jax.default_matmul_precision("highest"):
        return jax_net.as_tensors(case, jax.jit(_clipped(case, ask))(*given))


def private(job: Job, ask: Ask) -> Callable[[], None]:
    """The step with privacy."""
    case, (trainable, frozen, batch) = jax_net.load(job)
    clipped = _clipped(case, ask)
    noise = jax_privacy.noise_addition.gaussian_privatizer(
        stddev=case.noise_multiplier * clipped.sensitivity(), prng_key=jax.random.key(0)
    )
    update = cases.transforms(case)[1]

    def step(state: tuple[Params, Any, Any], frozen: Params, batch: Batch) -> tuple[Any, None]:
        trainable, noise_state, update_state = state
        noised, noise_state = noise.update(clipped(trainable, frozen, batch), noise_state)
        mean = jax.tree.map(lambda x: x / job.rows, noised)
        moves, update_state = update.update(mean, update_state, trainable)
        return (optax.apply_updates(trainable, moves), noise_state, update_state), None

    state = (trainable, noise.init(trainable), update.init(trainable))
    return jax_net.Stepper(step, state, frozen, batch)


def _clipped(case: Case, ask: Ask) -> Any:
    """A function ``(trainable, frozen, batch) -> sum``."""
    model = cases.model_of(case)

    def loss(trainable: Params, frozen: Params, one: Batch) -> Array:
        return model.loss(trainable, frozen, model.precompute(frozen, one))[0]

    return jax_privacy.clipping.clipped_grad(
        loss,
        l2_clip_norm=case.clipping.clip_norm,
        batch_argnums=2,
        microbatch_size=None if ask.microbatch_size == case.batch_size else ask.microbatch_size,
    )
