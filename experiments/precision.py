"""Measures gradients in bfloat16 against float32 after ten noised steps, one JSON line a method.

    python -m experiments.precision --weights=FOLDER --methods=lora,side,reversible

The rows are public. The fields are explained in memarc/measure/precision.py.
"""

from absl import flags

from experiments import cli, measuring
from memarc.measure import inspect, precision
from memarc.models.methods import all_options
from memarc.report import lines

_WEIGHTS = flags.DEFINE_string("weights", None, "Folder, GGUF file or hub name.")
_REDUCTION = flags.DEFINE_integer("reduction", 8, "Reduction of the side network.")
_ROWS = flags.DEFINE_integer("rows", 8, "Number of public rows.")
_TOKENS = flags.DEFINE_integer("tokens", 24, "Tokens of a row, at most.")


def main() -> int:
    """Prints the lines."""
    if not _WEIGHTS.value:
        raise ValueError("No --weights was given; name a folder, a GGUF file or a hub name.")
    model = inspect.open_model(_WEIGHTS.value)
    tokenizer = inspect.tokenizer_of(_WEIGHTS.value)
    batch = inspect.public_batch(model.config, tokenizer, _ROWS.value, _TOKENS.value)
    with lines.writer(measuring.OUTPUT.value) as write:
        for method in measuring.METHODS.value:
            given = {"reduction": _REDUCTION.value} if method == "side" else {}
            options = all_options(method, given)
            found = precision.measure(model, method, options, batch)
            write({"weights": _WEIGHTS.value, **found})
    return 0


if __name__ == "__main__":
    cli.run(main)
