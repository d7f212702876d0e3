"""memarc itself, by any of its engines."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers import jax_net
from benchmarks.peers.job import Ask, Job
from memarc.measure import case as cases
from memarc.measure import step as measure
from memarc.privacy import auto
from memarc.privacy.engines import clipped_grad_sum
from memarc.typing import Batch, Params

CANDIDATES = auto.CANDIDATES
DISTRIBUTIONS = ("memarc", "jax", "jaxlib", "numpy")
device, meter, plain = jax_net.device, jax_net.meter, jax_net.plain


def chosen(job: Job, ask: Ask) -> str:
    """The engine that "auto" means for a job on this device."""
    case, _ = jax_net.load(job)
    found = measure.compile_cheapest(case, CANDIDATES, ask.microbatch_size, measure.here())
    return found["engine"]


def clipped_sum(job: Job, ask: Ask) -> dict[str, np.ndarray]:
    """The sum before noise."""
    case, (trainable, frozen, batch) = jax_net.load(job)
    model = cases.model_of(case)

    @jax.jit
    def summed(trainable: Params, frozen: Params, batch: Batch) -> Params:
        return clipped_grad_sum(
            model.loss,
            trainable,
            frozen,
            batch,
            jnp.zeros((job.rows,), bool),
            clipping=case.clipping,
            engine=ask.engine,
            microbatch_size=ask.microbatch_size,
            precompute=model.precompute,
        )[0]

    with jax.default_matmul_precision("highest"):
        total = summed(trainable, frozen, batch)
    return jax_net.as_tensors(case, total)


def private(job: Job, ask: Ask) -> Callable[[], None]:
    """The step with privacy."""
    case, given = jax_net.load(job)
    made = cases.private_step(case, ask.engine, ask.microbatch_size)
    return jax_net.Stepper(made, *jax_net.arguments(case, *given))
