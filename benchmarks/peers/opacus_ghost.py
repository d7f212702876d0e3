"""Opacus with ghost clipping: norms of rows first, then a second backward pass (arXiv:2110.05679).

Made of the classes that `opacus.PrivacyEngine.make_private` puts together where its
``grad_sample_mode`` is "ghost".
"""

from collections.abc import Callable

import numpy as np
import torch
from opacus.grad_sample import (  # pyright: ignore[reportMissingImports]
    GradSampleModuleFastGradientClipping,
)
from opacus.optimizers import (  # pyright: ignore[reportMissingImports]
    DPOptimizerFastGradientClipping,
)
from opacus.utils.fast_gradient_clipping_utils import (  # pyright: ignore[reportMissingImports]
    DPLossFastGradientClipping,
)

from benchmarks.peers import torch_net
from benchmarks.peers.job import Ask, Job

DISTRIBUTIONS = ("opacus", "torch", "transformers", "numpy")
device, meter, plain = torch_net.device, torch_net.meter, torch_net.plain


def clipped_sum(job: Job, ask: Ask) -> dict[str, np.ndarray]:
    """The sum that the second backward pass leaves, before noise is added."""
    del ask
    training = _Training(job)
    training.backward()
    training.optimizer.accumulate()
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


class _Losses:
    """The losses of rows, as Opacus wants a criterion."""

    reduction = "mean"

    def __call__(self, logits: torch.Tensor, batch: torch_net.Batch) -> torch.Tensor:
        return torch_net.row_losses(logits, batch)


class _Training:
    """A network with hooks, its optimizer, its losses and its batch."""

    def __init__(self, job: Job) -> None:
        self.job, self.net, self.batch = job, torch_net.load(job), torch_net.load_batch(job)
        self.inputs = torch_net.inputs(self.net, self.batch)
        update = torch_net.optimizer(self.net, job)
        self.hooked = GradSampleModuleFastGradientClipping(
            self.net,
            loss_reduction="mean",
            max_grad_norm=job.clip_norm,
            use_ghost_clipping=True,
        )
        self.optimizer = DPOptimizerFastGradientClipping(
            update,
            noise_multiplier=job.noise_multiplier,
            max_grad_norm=job.clip_norm,
            expected_batch_size=job.rows,
            loss_reduction="mean",
        )
        self.losses = DPLossFastGradientClipping(
            self.hooked, self.optimizer, _Losses(), loss_reduction="mean"
        )

    def backward(self) -> None:
        """Makes both backward passes."""
        with torch_net.precision(self.job):
            logits = self.hooked(**self.inputs)
        self.losses(logits, self.batch).backward()
