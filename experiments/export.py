"""Exports a finished run's model for PEFT or transformers, with its tokenizer and a card.

    python -m experiments.export --run=OUT --to=transformers --output=FOLDER

"peft" writes what LoRA adds, "transformers" a whole model: full, bitfit, head, or LoRA merged.
"""

from absl import flags

from experiments import cli
from memarc import paths
from memarc.runs import exporting, tuned

_RUN = flags.DEFINE_string("run", None, "Folder of the finished run.")
_TO = flags.DEFINE_enum("to", exporting.TRANSFORMERS, exporting.FORMS, "The library to write for.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder to write; it must be new or empty.")
_WEIGHTS = flags.DEFINE_string("weights", None, "The backbone's weights, if they have moved.")


def main() -> int:
    """Exports one run."""
    if not _RUN.value or not _OUTPUT.value:
        raise ValueError("Name the folder of a finished run by --run, and a new one by --output.")
    model = tuned.load(_RUN.value, weights=_WEIGHTS.value)
    exporting.export(model, _TO.value, paths.place(_OUTPUT.value))
    print(f"Written to {_OUTPUT.value}; its README.md says how to open it.")
    return 0


if __name__ == "__main__":
    cli.run(main)
