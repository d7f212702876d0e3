"""The benchmarked network of the peers in JAX, which is memarc's own, and its steps.

Axes: B rows.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax import traverse_util

from benchmarks import tensors, workloads
from benchmarks.peers.job import Job
from benchmarks.peers.meter import HostMeter, Meter
from memarc.measure import case as cases
from memarc.measure.case import Case
from memarc.models import pretrained
from memarc.privacy.clipping import Clipping
from memarc.report import records
from memarc.training import step
from memarc.typing import Params, PyTree

device = records.device


def load(job: Job) -> tuple[Case, tuple[Params, Params, PyTree]]:
    """A job's case, and its trainable and frozen parameters and its batch."""
    dtype = "float32" if job.is_check else None
    case = workloads.make_case(job.workload, job.label, is_small=job.is_small, dtype=dtype)
    case = dataclasses.replace(case, clipping=Clipping(job.clip_norm))
    storage = "float32" if job.method == "full" else case.storage_dtype
    _, params = pretrained.load(
        job.folder / "backbone", dtype=case.backbone.dtype, storage_dtype=storage
    )
    trainable, frozen = cases.model_of(case).init(jax.random.key(0), params)
    start = safetensors.numpy.load_file(job.folder / "start.safetensors")
    flat: dict[Any, Any] = dict(traverse_util.flatten_dict(trainable))
    flat |= {tuple(name.split("/")): x for name, x in start.items()}
    batch = safetensors.numpy.load_file(job.folder / "batch.safetensors")
    return case, jax.device_put((traverse_util.unflatten_dict(flat), frozen, batch))


class Stepper:
    """A compiled step, and the state that it replaces each time."""

    def __init__(self, step: Callable[..., Any], state: PyTree, *given: PyTree) -> None:
        """Compiles ``(state, *given) -> (state, anything)``."""
        self.compiled = jax.jit(step, donate_argnums=0).lower(state, *given).compile()
        self.state, self.given = state, given

    def __call__(self) -> None:
        """Makes a step, and waits for it."""
        self.state, _ = self.compiled(self.state, *self.given)
        jax.block_until_ready(self.state)


def plain(job: Job) -> Callable[[], None]:
    """The step without privacy."""
    case, (trainable, frozen, batch) = load(job)
    return Stepper(cases.plain_step(case), *arguments(case, trainable, frozen, batch))


def arguments(case: Case, trainable: Params, frozen: Params, batch: PyTree) -> tuple[PyTree, ...]:
    """What memarc's steps take: state, frozen weights, the batch, and that no row is padding."""
    state = step.init_state(trainable, *cases.transforms(case))
    return state, frozen, batch, jnp.zeros((case.batch_size,), bool)


def as_tensors(case: Case, total: Params) -> dict[str, np.ndarray]:
    """A sum under the names that all peers use."""
    return tensors.flat(case, jax.device_get(total))


class DeviceMeter:
    """The peak of JAX's allocator, which forgets none: of a step that took less it is None."""

    def start(self) -> None:
        """Notes the peak so far."""
        self.before = self._peak()

    def peak_bytes(self) -> int | None:
        """The peak, if it is a new one."""
        found = self._peak()
        return found if found > self.before else None

    def _peak(self) -> int:
        return jax.devices()[0].memory_stats()["peak_bytes_in_use"]


def meter() -> Meter:
    """The meter of the device."""
    return DeviceMeter() if jax.devices()[0].memory_stats() else HostMeter()
