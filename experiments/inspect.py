"""Tells whether memarc works with a model: one JSON line, and a table of the tuning methods.

    python -m experiments.inspect --weights=FOLDER_OR_GGUF --batch_size=8 --seq_len=128

The line says what the model is (family, sizes, parameters, types of its files); how far its states
and logits are from transformers' on public rows (states_error and logits_error, relative; null
without torch, or with --nocompare); how many values of the exact reversible network do not come
back or leave their range (mismatched_values, saturated_values); what the plain network and the
reversible one, as it starts, lose a token (plain_loss and start_loss of decoders, in nats); and by
method what a private step takes on this device by the first of --engines that takes its loss, or
why it does not work. Public rows are plain sentences that the tokenizer beside the weights cuts, or
random ids where there is none. Nothing is trained.
"""

import dataclasses
from typing import Any

from absl import flags

from experiments import cli, measuring, step_sizes
from memarc.data import tokenize
from memarc.measure import inspect
from memarc.models.config import DTYPES
from memarc.models.methods import METHODS, REMAT_SUFFIX, all_options
from memarc.report import lines, records, tables

_WEIGHTS = flags.DEFINE_string("weights", None, "Folder, GGUF file or hub name.")
_TOKENIZER = flags.DEFINE_string("tokenizer", None, "Folder or hub name, if not in the weights.")
_DTYPE = flags.DEFINE_enum("dtype", "float32", DTYPES, "Dtype of steps and weights.")
_COMPARE = flags.DEFINE_bool(
    "compare", True, "Compare with transformers, which takes as much memory again."
)
flags.set_default(measuring.METHODS, list(METHODS))
flags.set_default(step_sizes.ENGINE_NAMES, ["book_keeping", "vmap"])
flags.set_default(step_sizes.BATCH_SIZE, 8)


def main() -> int:
    """Prints the line and the table."""
    if not _WEIGHTS.value:
        raise ValueError("No --weights was given; name a folder, a GGUF file or a hub name.")
    for label in measuring.METHODS.value:
        all_options(label.removesuffix(REMAT_SUFFIX), {})  # Refuses an unknown one at once.
    engines = step_sizes.candidates()
    model = inspect.open_model(_WEIGHTS.value)
    tokenizer = _tokenizer(_WEIGHTS.value)
    sizes = (step_sizes.BATCH_SIZE.value, step_sizes.SEQ_LEN.value)
    batch = inspect.public_batch(model.config, tokenizer, *sizes)
    measured = dataclasses.replace(model.config, dtype=_DTYPE.value)
    line = {
        "weights": _WEIGHTS.value,
        **inspect.facts(model),
        "tokenizer": None if tokenizer is None else len(tokenizer),
        "rows": "random ids" if tokenizer is None else "public sentences",
        "batch_size": sizes[0],
        "seq_len": sizes[1],
        "dtype": _DTYPE.value,
        **inspect.compare(model, batch, is_wanted=_COMPARE.value),
        **inspect.reversal(model, batch),
        **inspect.losses(model, batch),
        "methods": {
            label: inspect.step_of(measured, label, engines, *sizes)
            for label in measuring.METHODS.value
        },
        "device": records.device(),
    }
    with lines.writer(measuring.OUTPUT.value) as write:
        write(line)
    print(_table(line))
    return 0


def _tokenizer(weights: str) -> tokenize.Tokenizer | None:
    """The tokenizer of --tokenizer, or the weights' own if they have one."""
    if _TOKENIZER.value:
        return tokenize.load_tokenizer(_TOKENIZER.value, needs_pad=False)
    return inspect.tokenizer_of(weights)


def _table(line: dict[str, Any]) -> str:
    """One row a method."""
    columns = {
        "method": lambda item: item[0],
        "engine": lambda item: item[1].get("engine", ""),
        "arguments MiB": lambda item: _mebibytes(item[1].get("arguments_bytes")),
        "peak MiB": lambda item: _mebibytes(item[1].get("peak_bytes")),
        "set aside MiB": lambda item: _mebibytes(item[1].get("reserved_bytes")),
        "does not work": lambda item: item[1].get("error", ""),
    }
    items = list(line["methods"].items())
    return tables.table(items, list(columns), "terminal", columns)


def _mebibytes(count: int | None) -> str:
    return "" if count is None else f"{count / 2**20:,.1f}"


if __name__ == "__main__":
    cli.run(main)
