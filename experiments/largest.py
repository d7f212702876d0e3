r"""Finds the largest batch, length or depth of a private training step that fits a device.

    python -m experiments.largest --config=configs/memory/llama_7b.py --target=gpu:h100 \
        --field=batch_size --batch_size=8 --seq_len=512 --methods=reversible,lora+remat \
        --engines=ghost --output=FILE

A JSON line a method: that of `experiments.memory` of the largest step that fits, with the bytes it
was to fit, the target's or --bytes. --field is batch_size, layers, or seq_len in steps of --step;
the other sizes are as the flags and the config say, and all rows are differentiated at once. What
is found was compiled, and a sixteenth more does not fit, or has no positions. It takes five to
fifteen compilations.
"""

import sys
from collections.abc import Sequence
from typing import Any

import jax
from absl import flags

from experiments import amounts, cli, measuring, step_sizes
from memarc.measure import step as measure
from memarc.report import lines, targets
from memarc.runs.largest import most_that_fit

_TARGET = flags.DEFINE_string("target", "tpu:v5e", "A device as experiments.memory takes it.")
_FIELD = flags.DEFINE_enum("field", "batch_size", step_sizes.SIZES, "What is to be large.")
_STEP = flags.DEFINE_integer("step", 1, "It is looked for among multiples of this.", 1)
_BYTES = flags.DEFINE_string("bytes", None, "Bytes such as 16GiB, if not those of the target.")
_MOST = 2**16
"""The most that is looked for; of tokens what the model has positions for."""


def main() -> int:
    """Prints the lines."""
    wanted = amounts.bytes_of(_BYTES)
    if _TARGET.value != "gpu":
        jax.config.update("jax_platforms", "cpu")  # Else a TPU runtime would look for its device.
    devices = targets.devices(_TARGET.value)[:1]
    memory = targets.memory(_TARGET.value, devices)
    target = measure.Target(devices, None, min(memory, wanted or memory))
    engines = step_sizes.candidates()
    for label in measuring.METHODS.value:  # A mistake in one is told before any is compiled.
        step_sizes.sized(label, {_FIELD.value: _STEP.value})
    with lines.writer(measuring.OUTPUT.value) as write:
        for label in measuring.METHODS.value:
            write(_line(label, engines, target))
    return 0


def _line(label: str, engines: Sequence[str], target: measure.Target) -> dict[str, Any]:
    """The line of the largest step of a method that fits; where none does, of the smallest."""
    tried: dict[int, dict[str, Any]] = {}

    def taken(count: int) -> int | None:
        size = count * _STEP.value
        case = step_sizes.sized(label, {_FIELD.value: size})
        found = measure.compile_cheapest(case, engines, case.batch_size, target)
        tried[count] = case.described | {"microbatch_size": case.batch_size} | found
        peak = found["peak_bytes"] or found["needed_bytes"] or None
        shown = "more than the compiler says" if peak is None else f"{peak / 2**20:,.1f} MiB"
        print(f"{label}, {_FIELD.value} {size}: {shown}", file=sys.stderr, flush=True)
        return peak

    longest = step_sizes.sized(label, {_FIELD.value: _STEP.value}).backbone.longest_sequence
    most = longest // _STEP.value if _FIELD.value == "seq_len" else _MOST
    count = most_that_fit(taken, target.memory, most)
    what = {"target": _TARGET.value, "largest": _FIELD.value, "bytes_limit": target.memory}
    return tried[count or 1] | what


if __name__ == "__main__":
    cli.run(main)
