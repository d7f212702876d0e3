"""Loads folders straight to simulated devices and prints what was found, as JSON."""

import dataclasses
import functools
import itertools
import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np

from memarc import batches
from memarc.models import pretrained, tensor_files
from memarc.models.build import build
from memarc.models.families.known import make_config
from memarc.models.head import HeadConfig
from memarc.models.language import LanguageConfig
from memarc.ops import quantised
from memarc.training import step
from memarc.training.sharding import MeshConfig, place
from tests.backbone_shapes import shapes_of

SMALL = {
    "vocab_size": 13,
    "width": 12,
    "layers": 3,
    "heads": 6,
    "feed_forward": 9,
    "max_positions": 11,
    "norm_epsilon": 1e-5,
    "activation": "silu",
    "dtype": "float32",
}
ENCODER = {**SMALL, "type_vocab": 2, "pad_id": 1}
CONFIGS = {
    "bert": make_config("bert", **ENCODER),
    "roberta": make_config("roberta", **ENCODER),
    "gpt2": make_config("gpt2", **SMALL),
    "llama": make_config("llama", **SMALL, kv_heads=3, has_table=True),
}
DOUBLE = {"width": 24, "feed_forward": 10}  # A side network halves them.
METHODS = {
    "full": {},
    "head": {},
    "lora": {},
    "adapter": {"bottleneck": 2},
    "side": {"reduction": 2, "downsample": "frozen"},
    "reversible": {"bottleneck": 2},
}


def random_params(config, seed=0):
    rng = np.random.default_rng(seed)
    shapes = shapes_of(config)
    return jax.tree.map(lambda x: rng.standard_normal(x.shape, np.float32), shapes)


def placement_of(mesh):
    """Of "2x2", or None for "1x1"."""
    data, model = map(int, mesh.split("x"))
    return place(MeshConfig(data, model, "whole"), jax.devices()[: data * model], 4)


def sharding_of(placement):
    if placement:
        return placement.frozen_sharding
    return lambda path, shape: jax.sharding.SingleDeviceSharding(jax.devices()[0])


def load(folder, storage_dtype, placement, block=quantised.BLOCK):
    params = pretrained.load(
        folder,
        dtype="float32",
        storage_dtype=storage_dtype,
        storage_block=block,
        sharding_of=sharding_of(placement) if placement != "host" else None,
    )[1]
    return jax.block_until_ready(params)


def is_equal(first, second):
    """Whether what a process holds of the first tree is, bit for bit, that of the second."""

    def same(a, b):
        b = np.asarray(b)
        parts = [(x.index, np.asarray(x.data)) for x in a.addressable_shards]
        return a.dtype == b.dtype and all(
            part.shape == b[index].shape and part.tobytes() == b[index].tobytes()
            for index, part in parts
        )

    return jax.tree.structure(first) == jax.tree.structure(second) and all(
        jax.tree.leaves(jax.tree.map(same, first, second))
    )


class Counted:
    """`tensor_files.read` that counts the values it reads."""

    def __init__(self, read):
        self.read, self.values = read, 0

    def __call__(self, *args, **options):
        found = self.read(*args, **options)
        self.values += found.size
        return found


def check_leaves(folder, kinds, meshes):
    """Whether leaves are equal and lie right, and which part of all values was read."""
    found = {}
    for kind in kinds:
        for dtype, mesh in itertools.product(("float32", "bfloat16"), meshes):
            placement, host = placement_of(mesh), load(folder / kind, dtype, "host")
            counted = tensor_files.read = Counted(tensor_files.read)
            params = load(folder / kind, dtype, placement)
            tensor_files.read = counted.read
            leaves = jax.tree.leaves(params)
            found[f"{kind} {dtype} {mesh}"] = {
                "equal": is_equal(params, host),
                "stays": addresses(placement.place_frozen(params)) == addresses(params),
                "read": counted.values / sum(x.size for x in leaves),
                "cut": sorted({str(x.sharding.spec) for x in leaves}),
            }
    return found


def check_blocks(folder, kinds, meshes):
    """Whether codes and scales are equal and lie right, and how they are cut."""
    found = {}
    for kind, dtype, mesh in itertools.product(kinds, ("int8", "int4"), meshes):
        placement = placement_of(mesh)
        host, params = (
            load(folder / f"double-{kind}", dtype, where, 2) for where in ("host", placement)
        )
        placed = placement.place_frozen(params)
        down = params["layers"]["feed_forward"]["output"]["kernel"]
        found[f"{kind} {dtype} {mesh}"] = {
            "equal": is_equal(params, host),
            "stays": addresses(placed) == addresses(params),
            "cut": [str(x.sharding.spec) for x in (down.codes, down.scales)],
        }
    return found


def check_methods(folder, kinds, meshes):
    """Whether each method starts from arrays on a mesh as from those of the host."""
    found = {}
    for kind, mesh in itertools.product(kinds, meshes):
        placement = placement_of(mesh)
        host = load(folder / f"double-{kind}", "float32", "host")
        params = load(folder / f"double-{kind}", "float32", placement)
        for method, options in METHODS.items():
            config = double(CONFIGS[kind])
            head = LanguageConfig() if config.parts.is_decoder else HeadConfig()
            model = build(method, options, config, head)
            wanted = model.init(jax.random.key(0), host)
            trainable, frozen = model.init(jax.random.key(0), params)
            placed = placement.place_frozen(frozen)
            state = placement.replicate(step.init_state(trainable, NOTHING, NOTHING).trainable)
            public = batches.random(model.kind, jax.random.key(1), 2, 8, vocab_size=13)
            model.check_start(state, placed, public)
            kept = set(addresses(params)) - set(addresses(trainable))
            found[f"{kind} {method} {mesh}"] = {
                "equal": is_equal((state, placed), wanted),
                "stays": kept <= set(addresses(placed)),
                "donates its own": not set(addresses(state)) & set(addresses(params)),
            }
    return found


def double(config):
    return dataclasses.replace(config, **DOUBLE)


class NOTHING:
    """A transformation without a state."""

    @staticmethod
    def init(params):
        del params
        return ()


def addresses(tree):
    """Of every part of every leaf that is on a device."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array)]
    return [x.data.unsafe_buffer_pointer() for leaf in leaves for x in leaf.addressable_shards]


def check_memory(folder, kinds, meshes, is_streamed):
    """Growth of the peak of this process's memory, in sizes of the model."""
    (kind,), (mesh,) = kinds, meshes
    placement = placement_of(mesh)
    jax.block_until_ready(jnp.ones(8) + 1.0)  # Whatever JAX sets up.
    before = peak_bytes()
    if is_streamed:
        params = load(folder / kind, "float32", placement)
    else:  # The measure must see a reader that holds all on the host.
        host = load(folder / kind, "float32", "host")
        params = placement.place_frozen(host) if placement else jax.device_put(host)
        jax.block_until_ready(params)
    grown = peak_bytes() - before
    return grown / sum(x.nbytes for x in jax.tree.leaves(params))


def peak_bytes():
    """Peak resident memory, mapped pages included; ``ru_maxrss`` would be the parent's at first."""
    (line,) = [x for x in open("/proc/self/status").readlines() if x.startswith("VmHWM:")]
    return 1024 * int(line.split()[1])


def write(folder):
    """A folder of each kind, whole or in shards, and one that is twice as wide."""
    for number, (kind, config) in enumerate(CONFIGS.items()):
        bound = 2000 if number % 2 else None
        pretrained.save(folder / kind, config, random_params(config), max_shard_bytes=bound)
        config = double(config)
        pretrained.save(folder / f"double-{kind}", config, random_params(config))


def write_llama(folder):
    """LLaMA-2-7B, its widths divided by 16: 103 MB."""
    config = make_config(
        "llama",
        vocab_size=2000,
        width=256,
        layers=32,
        heads=32,
        feed_forward=688,
        max_positions=256,
        norm_epsilon=1e-5,
        activation="silu",
        dtype="float32",
        has_table=True,
    )
    pretrained.save(folder, config, random_params(config), max_shard_bytes=40_000_000)


CHECKS = {
    "leaves": check_leaves,
    "blocks": check_blocks,
    "methods": check_methods,
    "memory": functools.partial(check_memory, is_streamed=True),
    "memory by the host": functools.partial(check_memory, is_streamed=False),
}


def main():
    """Arguments: what to check, a folder, kinds, meshes, and of several processes which this is."""
    what, folder, kinds, meshes = sys.argv[1:5]
    if sys.argv[5:]:
        address, count, number = sys.argv[5:]
        jax.distributed.initialize(address, int(count), int(number))
    found = CHECKS[what](pathlib.Path(folder), kinds.split(","), meshes.split(","))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
