"""Where arrays live on a mesh of devices: the one place that states shardings.

Rows of a batch are cut over all devices. Each computes the clipped sum of its own rows by itself;
sums are added up once a step, before noise is drawn once, from keys that know nothing of the mesh:
noise has one standard deviation everywhere. Trainable parameters and optimizer state are on every
device, or cut over all of them. Frozen kernels of layers may be cut over the axis "model", and are
gathered a layer at a time.

Axes: N devices, B rows of a batch, L layers.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from memarc.ops.sharded import Shard
from memarc.privacy import summation
from memarc.privacy.summation import CompensatedSum
from memarc.training import step
from memarc.typing import Array, Batch, Params, PyTree

AXES = ("data", "model")
STATES = ("whole", "cut")


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """The sizes of the mesh.

    Attributes:
      data: The number of copies of the frozen weights; None takes all devices over ``model``.
      model: The number of devices that hold one copy of the frozen layers together.
      state: "whole" keeps trainable parameters and optimizer state on every device; "cut" cuts each
        array over all devices where one of its axes allows, and gathers it for each batch.
    """

    data: int | None = None
    model: int = 1
    state: str = "whole"

    def __post_init__(self) -> None:
        """Checks all fields."""
        if self.state not in STATES:
            raise ValueError(f"mesh.state is {self.state!r}; choose one of {STATES}.")
        for name, size in (("data", self.data), ("model", self.model)):
            if size is not None and size < 1:
                raise ValueError(f"mesh.{name} is {size}; give at least 1.")


@dataclasses.dataclass(frozen=True)
class Placement:
    """A mesh, and how a step's arrays lie on it.

    Attributes:
      mesh: The devices in their arrangement.
      cuts_state: Whether trainable parameters and optimizer state are cut over them.
    """

    mesh: Mesh
    cuts_state: bool

    @property
    def size(self) -> int:
        """The number N of devices."""
        return self.mesh.size

    def replicate(self, tree: PyTree) -> PyTree:
        """Puts a tree whole on every device."""
        sharding = NamedSharding(self.mesh, P())
        return jax.tree.map(lambda x: _put(x, sharding), tree)

    def rows(self, batch: PyTree) -> PyTree:
        """Puts arrays [B, ...] on the mesh, rows cut over all devices, B a multiple of N."""
        sharding = NamedSharding(self.mesh, P(AXES))
        return jax.tree.map(lambda x: _put(x, sharding), batch)

    def state_sharding(self, shape: tuple[int, ...]) -> NamedSharding:
        """Cuts an array of the train state along its largest axis that all devices divide."""
        axes = [axis for axis, size in enumerate(shape) if size and size % self.size == 0]
        if not (self.cuts_state and axes):
            return NamedSharding(self.mesh, P())
        return NamedSharding(self.mesh, P(*[None] * max(axes, key=lambda x: shape[x]), AXES))

    def place_state(self, state: PyTree) -> PyTree:
        """Puts a train state on the mesh."""
        return jax.tree.map(lambda x: _put(x, self.state_sharding(x.shape)), state)

    def abstract_state(self, state: PyTree) -> PyTree:
        """Gives an abstract train state, lying as `place_state` lays it."""
        return jax.tree.map(lambda x: _abstract(x, self.state_sharding(x.shape)), state)

    def abstract_frozen(self, frozen: Params) -> Params:
        """Gives abstract frozen parameters, lying as `place_frozen` lays them."""
        return jax.tree.map(_abstract, frozen, self._frozen_shardings(frozen))

    def frozen_sharding(self, path: tuple[str, ...], shape: tuple[int, ...]) -> NamedSharding:
        """Cuts a frozen leaf that is a kernel of layers [L, I, O] along outputs or inputs."""
        size, spec = self.mesh.shape["model"], P()
        if size > 1 and "layers" in path and "kernel" in path and len(shape) == 3:
            axis = next((axis for axis in (2, 1) if shape[axis] % size == 0), None)
            spec = P() if axis is None else P(*[None] * axis, "model")
        return NamedSharding(self.mesh, spec)

    def place_frozen(self, frozen: Params) -> Params:
        """Puts frozen parameters on the mesh, big ones cut; what lies right stays where it is."""
        return jax.tree.map(_put, frozen, self._frozen_shardings(frozen))

    def zero_sum(self, trainable: Params) -> CompensatedSum:
        """The clipped sum of an empty draw, one part a device, [N, ...]."""
        return jax.tree.map(
            lambda x: jnp.zeros(x.shape, x.dtype, device=x.sharding), self.abstract_sum(trainable)
        )

    def abstract_sum(self, trainable: Params) -> CompensatedSum:
        """Gives the shapes of `zero_sum`, and where they lie."""
        zeros = jax.eval_shape(summation.zero, trainable)
        parts = jax.tree.map(lambda x: jax.ShapeDtypeStruct((self.size, *x.shape), x.dtype), zeros)
        return _abstract(parts, NamedSharding(self.mesh, P(AXES)))

    def accumulate(
        self, accumulate: Callable[..., CompensatedSum], frozen: Params
    ) -> Callable[..., CompensatedSum]:
        """Makes `step.make_accumulate`'s function work on every device's own rows.

        Args:
          accumulate: ``(grad_sum, trainable, frozen, batch, is_padding[B]) -> grad_sum``.
          frozen: Arrays or abstract.

        Returns:
          The same function with sums [N, ...]; devices send each other frozen parameters alone.
        """
        specs = self._specs(frozen)

        def local(
            grad_sum: CompensatedSum,
            trainable: Params,
            frozen: Params,
            batch: Batch,
            is_padding: Array,
        ) -> CompensatedSum:
            frozen = jax.tree.map(_as_shard, frozen, specs)
            grad_sum = jax.tree.map(lambda x: x[0], grad_sum)
            grad_sum = accumulate(grad_sum, trainable, frozen, batch, is_padding)
            return jax.tree.map(lambda x: x[None], grad_sum)

        rows = P(AXES)
        return jax.shard_map(
            local,
            mesh=self.mesh,
            in_specs=(rows, P(), specs, rows, rows),
            out_specs=rows,
            check_vma=False,
        )

    def abstract_rows(self, batch: PyTree) -> PyTree:
        """Gives abstract arrays [B, ...] whose rows are cut over all devices."""
        return _abstract(batch, NamedSharding(self.mesh, P(AXES)))

    def update(self, update: Callable[..., Any]) -> Callable[..., Any]:
        """Makes `step.make_update`'s function add up the devices' parts first."""

        def total(state: step.TrainState, parts: CompensatedSum) -> tuple[step.TrainState, Any]:
            state, metrics = update(state, jax.tree.map(lambda x: x.sum(0), parts))
            lie = jax.tree.map(lambda x: self.state_sharding(x.shape), state)
            return jax.lax.with_sharding_constraint(state, lie), metrics

        return total

    def _frozen_shardings(self, frozen: Params) -> PyTree:
        """The `frozen_sharding` of every leaf."""

        def sharding(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
            return self.frozen_sharding(tuple(str(getattr(x, "key", x)) for x in path), leaf.shape)

        return jax.tree_util.tree_map_with_path(sharding, frozen)

    def _specs(self, frozen: Params) -> PyTree:
        """The partition spec of every frozen leaf."""
        return jax.tree.map(lambda sharding: sharding.spec, self._frozen_shardings(frozen))


def _abstract(tree: PyTree, sharding: NamedSharding) -> PyTree:
    """Gives the shapes and dtypes of a tree, all lying alike."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


def _put(x: Any, sharding: NamedSharding) -> Array:
    """Puts an array on the mesh; every process must hold the whole of it, or have it there."""
    if jax.process_count() == 1 or (isinstance(x, jax.Array) and not x.is_fully_addressable):
        return jax.device_put(x, sharding)
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        words = _put(jax.random.key_data(x), sharding)
        return jax.random.wrap_key_data(words, impl=jax.random.key_impl(x))
    host = np.asarray(x)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def _as_shard(leaf: Array, spec: P) -> Array | Shard:
    """Marks a device's part of a leaf as a part."""
    return Shard(leaf, "model", len(spec) - 1 - leaf.ndim) if len(spec) else leaf


def place(config: MeshConfig, devices: Sequence[Any], physical_batch_size: int) -> Placement | None:
    """Arranges devices in a mesh.

    Args:
      config: The sizes of the mesh.
      devices: All devices of the run.
      physical_batch_size: B.

    Returns:
      The placement; None for one device, which needs none.

    Raises:
      ValueError: If sizes, devices and rows do not go together, with numbers that would.
    """
    count = len(devices)
    data = count // config.model if config.data is None else config.data
    if data * config.model != count or not data:
        raise ValueError(
            f"mesh.data is {config.data} and mesh.model {config.model}, but there are {count} "
            f"devices; give sizes whose product is {count}, or mesh.data None."
        )
    if count == 1:
        return None
    if physical_batch_size % count:
        best = count * max(1, round(physical_batch_size / count))
        raise ValueError(
            f"privacy.physical_batch_size is {physical_batch_size}, which {count} devices cannot "
            f"share evenly; give a multiple, such as {best}."
        )
    arranged = np.asarray(devices).reshape(data, config.model)
    mesh = Mesh(arranged, AXES, axis_types=(AxisType.Auto,) * len(AXES))
    return Placement(mesh, cuts_state=config.state == "cut")


def compile_rows(
    placement: Placement | None, function: Callable[..., PyTree]
) -> Callable[..., PyTree]:
    """Compiles a function of rows, such as a prediction.

    Args:
      placement: Where parameters lie; None for one device.
      function: ``(trainable, frozen, *arrays [B, ...]) -> arrays``.

    Returns:
      The same function for rows in host memory. On a mesh they are cut over all devices, if these
      divide B, and every process gets the whole result.
    """
    if placement is None:
        return jax.jit(function)
    compiled = jax.jit(function, out_shardings=NamedSharding(placement.mesh, P()))

    def call(trainable: Params, frozen: Params, *arrays: Any) -> PyTree:
        even = jax.tree.leaves(arrays)[0].shape[0] % placement.size == 0
        return compiled(
            trainable, frozen, *(placement.rows(arrays) if even else placement.replicate(arrays))
        )

    return call


def rows_of_device(placement: Placement | None, physical_batch_size: int) -> int:
    """The number of rows of a batch that one device gets."""
    return physical_batch_size // (placement.size if placement else 1)
