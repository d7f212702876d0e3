"""Measures whether a reversible network comes back, and prints one JSON line.

    python -m experiments.reversibility --layers=24 --width=256 --dtype=bfloat16 --arithmetic=exact

All of it is measured inside one compiled program that also computes the gradient. With --weights
the layers are real ones, and the line also says how far each coupling starts from the pre-trained
function. The fields are explained in memarc/measure/reversibility.py.
"""

import jax
from absl import flags

from experiments import cli
from memarc import paths
from memarc.measure import inspect, reversibility
from memarc.models import backbone, pretrained
from memarc.models.config import DTYPES, BackboneConfig
from memarc.models.coupled import Network
from memarc.models.couplings import COUPLINGS
from memarc.models.families.known import make_config
from memarc.models.reversible import Reversible
from memarc.report import lines, records
from memarc.typing import Params

_LAYERS = flags.DEFINE_integer("layers", 24, "Layers of a random network.")
_WIDTH = flags.DEFINE_integer("width", 256, "Its width, a multiple of 64.")
_DTYPE = flags.DEFINE_enum("dtype", "float32", DTYPES, "Compute dtype.")
_ARITHMETIC = flags.DEFINE_enum(
    "arithmetic", Reversible.arithmetic, ("exact", "float"), "How streams are added up and undone."
)
_LAMBDA = flags.DEFINE_float("lambda", Reversible.scale, "Factor of the coupling.")
_COUPLING = flags.DEFINE_enum("coupling", Reversible.coupling, list(COUPLINGS), "The coupling.")
_SEGMENT = flags.DEFINE_integer("segment", 2, "Layers between anchors of the float inverse.")
_ROWS = flags.DEFINE_integer("rows", 4, "Rows of the random input.")
_TOKENS = flags.DEFINE_integer("tokens", 32, "Tokens of a row.")
_SEED = flags.DEFINE_integer("seed", reversibility.SEED, "Seed of the random input.")
_WEIGHTS = flags.DEFINE_string("weights", None, "Folder or hub name of real weights.")
_OUTPUT = flags.DEFINE_string("output", None, "File of JSON lines to add to.")


def main() -> int:
    """Prints the line."""
    config, params = _network()
    options = Reversible(  # Checks that the segment divides the layers.
        config,
        coupling=_COUPLING.value,
        scale=_LAMBDA.value,
        arithmetic=_ARITHMETIC.value,
        anchor_every=_SEGMENT.value,
    )
    shape = (_ROWS.value, _TOKENS.value)
    net = Network(config, COUPLINGS[options.coupling], options.scale, options.anchor_every)
    line = {
        "layers": config.layers,
        "width": config.width,
        "dtype": config.dtype,
        "coupling": options.coupling,
        "arithmetic": options.arithmetic,
        "lambda": options.scale,
        "segment": options.anchor_every,
        "weights": _WEIGHTS.value or "random",
        "seed": _SEED.value,
        **reversibility.measure(net, params, options.arithmetic, shape, _SEED.value),
    }
    if _WEIGHTS.value:
        line["distances"] = reversibility.distances(config, params, shape)
        line |= _losses(_WEIGHTS.value)
    text = lines.as_text(line | {"device": records.device()})
    print(text)
    if _OUTPUT.value:
        with open(paths.expanded(_OUTPUT.value), "a", encoding="utf-8") as file:
            file.write(text + "\n")
    return 0


def _losses(weights: str) -> dict[str, float | None]:
    """How well a decoder predicts public text, as it is and as the exact network starts."""
    model, tokenizer = inspect.open_model(weights), inspect.tokenizer_of(weights)
    if tokenizer is None:
        return {}
    return inspect.losses(model, inspect.public_batch(model.config, tokenizer, 8, 32))


def _network() -> tuple[BackboneConfig, Params]:
    """Real weights, or a random encoder of the sizes that the flags give."""
    if _WEIGHTS.value:
        return pretrained.load(_WEIGHTS.value, dtype=_DTYPE.value, storage_dtype="float32")
    if _WIDTH.value % 64 or _WIDTH.value < 64:
        raise ValueError(f"width is {_WIDTH.value}; give a multiple of 64.")
    config = make_config(
        "bert",
        vocab_size=97,
        width=_WIDTH.value,
        layers=_LAYERS.value,
        heads=_WIDTH.value // 64,
        feed_forward=4 * _WIDTH.value,
        max_positions=512,
        type_vocab=2,
        norm_epsilon=1e-12,
        activation="gelu",
        pad_id=0,
        dtype=_DTYPE.value,
    )
    return config, backbone.init(config, jax.random.key(3))


if __name__ == "__main__":
    cli.run(main)
