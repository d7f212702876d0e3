"""opake: gradients of rows by torch.func's vmap, clipped and noised by functions."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from opake.dpsgd.clipping import clipped_grad  # pyright: ignore[reportMissingImports]
from opake.dpsgd.noise import gaussian_noise  # pyright: ignore[reportMissingImports]
from opake.functional import make_functional  # pyright: ignore[reportMissingImports]
from opake.random import key  # pyright: ignore[reportMissingImports]

from benchmarks.peers import torch_net
from benchmarks.peers.job import Ask, Job

DISTRIBUTIONS = ("opake", "torch", "transformers", "numpy")
device, meter, plain = torch_net.device, torch_net.meter, torch_net.plain


def clipped_sum(job: Job, ask: Ask) -> dict[str, np.ndarray]:
    """The sum before noise."""
    _, clipped = _made(job, ask, normalize_by=1.0)
    return torch_net.as_arrays(clipped().pytree)


def private(job: Job, ask: Ask) -> Callable[[], None]:
    """The step with privacy; the optimizer is PyTorch's."""
    net, clipped = _made(job, ask, normalize_by=float(job.rows))
    update = torch_net.optimizer(net, job)
    noise, state = gaussian_noise(noise_multiplier=job.noise_multiplier, key=key(0))
    trained = {name: x for name, x in net.named_parameters() if x.requires_grad}

    def step() -> None:
        nonlocal state
        noised, state = noise(clipped(), state)
        for name, gradient in noised.pytree.items():
            trained[name].grad = gradient
        update.step()
        torch_net.wait()

    return step


def _made(job: Job, ask: Ask, normalize_by: float) -> tuple[torch_net.Net, Callable[[], Any]]:
    """A network, and a function that gives its clipped gradients, divided."""
    # PyTorch vectorises no kernel of attention over rows on a CPU: it would run them one by one.
    net, batch = torch_net.load(job, attention="eager"), torch_net.load_batch(job)
    rows = {**batch, "attention_mask": torch_net.whole_mask(net, batch)}
    names = list(rows)
    call, trained, frozen = make_functional(
        net, disable_autograd_tracking=True, partition_trainable=True
    )

    def loss(params: dict[str, torch.Tensor], *row: torch.Tensor) -> torch.Tensor:
        one = {name: x.unsqueeze(0) for name, x in zip(names, row, strict=True)}
        with torch_net.precision(job):
            logits = call({**frozen, **params}, **torch_net.inputs(net, one))
        return torch_net.row_losses(logits, one)[0]

    gradient, state = clipped_grad(
        loss,
        clipping_norm=job.clip_norm,
        normalize_by=normalize_by,
        batch_argnums=tuple(range(1, len(names) + 1)),
        microbatch_size=None if ask.microbatch_size == job.rows else ask.microbatch_size,
    )

    def clipped() -> Any:
        found, _ = gradient(trained, *rows.values(), state=state)
        return found

    return net, clipped
