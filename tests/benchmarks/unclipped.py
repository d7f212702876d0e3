"""A broken peer: memarc's network, whose rows' gradients are summed without being clipped."""

import jax
import numpy as np

from benchmarks.peers import jax_net
from benchmarks.peers.job import Ask, Job
from memarc.measure import case as cases

DISTRIBUTIONS = ("memarc",)
device, meter, plain = jax_net.device, jax_net.meter, jax_net.plain


def clipped_sum(job: Job, ask: Ask) -> dict[str, np.ndarray]:
    del ask
    case, (trainable, frozen, batch) = jax_net.load(job)
    model = cases.model_of(case)
    gradient = jax.grad(lambda x: model.loss(x, frozen, model.precompute(frozen, batch)).sum())
    return jax_net.as_tensors(case, jax.jit(gradient)(trainable))
