"""Opacus with hooks that keep every row's gradient (Yousefpour et al. 2021, arXiv:2109.12298).

Made of the classes that `opacus.PrivacyEngine.make_private` puts together.
"""

from collections.abc import Callable

import numpy as np
from opacus.grad_sample import GradSampleModule  # pyright: ignore[reportMissingImports]
from opacus.optimizers import DPOptimizer  # pyright: ignore[reportMissingImports]

from benchmarks.peers import torch_net
from benchmarks.peers.job import Ask, Job

DISTRIBUTIONS = ("opacus", "torch", "transformers", "numpy")
device, meter, plain = torch_net.device, torch_net.meter, torch_net.plain


def clipped_sum(job: Job, ask: Ask) -> dict[str, np.ndarray]:
    """The sum that the optimizer makes before it adds noise."""
    del ask
    training = _Training(job)
    training.backward()
    training.optimizer.clip_and_accumulate()
    return torch_net.trained(training.net, "summed_grad")


def private(job: Job, ask: Ask) -> Callable[[], None]:
    """The step with privacy."""
    del ask
    training = _Training(job)

    def step() -> None:
        training.optimizer.zero_grad(set_to_none=True)
        training.backward()
        training.optimizer.step()
        torch_net.wait()

    return step


class _Training:
    """A network with hooks, its optimizer and its batch."""

    def __init__(self, job: Job) -> None:
        self.job, self.net, self.batch = job, torch_net.load(job), torch_net.load_batch(job)
        self.inputs = torch_net.inputs(self.net, self.batch)
        update = torch_net.optimizer(self.net, job)
        self.hooked = GradSampleModule(self.net, loss_reduction="mean")
        self.optimizer = DPOptimizer(
            update,
            noise_multiplier=job.noise_multiplier,
            max_grad_norm=job.clip_norm,
            expected_batch_size=job.rows,
            loss_reduction="mean",
        )

    def backward(self) -> None:
        """Leaves each row's gradient at the parameters."""
        with torch_net.precision(self.job):
            logits = self.hooked(**self.inputs)
        torch_net.row_losses(logits, self.batch).mean().backward()
