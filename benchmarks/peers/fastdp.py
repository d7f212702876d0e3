"""fastDP (Bu et al. 2023, arXiv:2210.00038): book keeping, from a checkout.

The environment variable FASTDP_HOME names the checkout's folder, as no package index has it.
"""

import os
import sys
from collections.abc import Callable

HOME = "FASTDP_HOME"
if not os.environ.get(HOME):  # Known before PyTorch is read.
    raise ModuleNotFoundError(f"{HOME} is not set; give the folder of a checkout of fastDP")
sys.path.insert(0, os.environ[HOME])

import numpy as np  # noqa: E402
from fastDP import PrivacyEngine  # noqa: E402  # pyright: ignore[reportMissingImports]

from benchmarks.peers import torch_net  # noqa: E402
from benchmarks.peers.job import Ask, Job  # noqa: E402

DISTRIBUTIONS = ("torch", "transformers", "numpy")
device, meter, plain = torch_net.device, torch_net.meter, torch_net.plain


def clipped_sum(job: Job, ask: Ask) -> dict[str, np.ndarray]:
    """What the engine puts in place of a gradient, without noise, times the rows it divides by."""
    del ask
    net, step = _made(job, noise_multiplier=0.0, learning_rate=0.0)
    step()
    found = torch_net.trained(net, "grad")
    return {name: job.rows * x for name, x in found.items()}


def private(job: Job, ask: Ask) -> Callable[[], None]:
    """The step with privacy."""
    del ask
    return _made(job, job.noise_multiplier, job.learning_rate)[1]


def _made(
    job: Job, noise_multiplier: float, learning_rate: float
) -> tuple[torch_net.Net, Callable[[], None]]:
    """A network, and its private step."""
    net, batch = torch_net.load(job), torch_net.load_batch(job)
    given, update = torch_net.inputs(net, batch), torch_net.optimizer(net, job)
    for group in update.param_groups:
        group["lr"] = learning_rate
    engine = PrivacyEngine(
        net,
        batch_size=job.rows,
        sample_size=1000 * job.rows,
        epochs=1,
        max_grad_norm=job.clip_norm,
        noise_multiplier=noise_multiplier,
        clipping_fn="Abadi",
        clipping_mode="MixOpt",
        clipping_style="all-layer",
        loss_reduction="mean",
    )
    engine.attach(update)

    def step() -> None:
        with torch_net.precision(job):
            logits = net(**given)
        torch_net.row_losses(logits, batch).mean().backward()
        update.step()
        torch_net.wait()

    return net, step
