"""Writes what a finished run's model says of the rows of a file.

    python -m experiments.predict --run=OUT --input=new.csv --output=labels.csv

The input is a file as the run itself reads them (`memarc.data.own_files`), without what is wanted;
"-" reads JSON Lines from standard input. The output is CSV, or JSON Lines; "-" is standard output.
"""

import sys

from absl import flags

from experiments import cli
from memarc.runs import predictions, tuned

_RUN = flags.DEFINE_string("run", None, "Folder of the finished run.")
_INPUT = flags.DEFINE_string("input", "-", "File of rows, or - for standard input.")
_OUTPUT = flags.DEFINE_string("output", "-", "File to write (.csv, .tsv, .jsonl), or -.")
_TEXT = flags.DEFINE_list("text", [], "Columns of texts, where they are not named as in the run.")
_ENCODING = flags.DEFINE_string("encoding", None, "Of text files; the run's by default.")
_WEIGHTS = flags.DEFINE_string("weights", None, "The backbone's weights, if they have moved.")


def main() -> int:
    """Predicts all rows; tells on standard error how far it is."""
    if not _RUN.value:
        raise ValueError("No --run was given; name the folder of a finished run.")
    model = tuned.load(_RUN.value, weights=_WEIGHTS.value)
    columns = predictions.inputs_of(
        model, _INPUT.value, columns=_TEXT.value, encoding=_ENCODING.value
    )
    _tell(f"{len(columns[0])} rows read from {_INPUT.value}; predicting.")
    records = predictions.predict(model, columns)
    predictions.write(records, _OUTPUT.value)
    lost = predictions.undefined(records)
    if lost:
        _tell(
            f"The network left its range for {len(lost)} rows, of which there is no prediction: "
            f"number {', '.join(map(str, lost[:5]))}, from 1."
        )
    _tell(f"{len(records)} predictions written to {_OUTPUT.value}.")
    return 0


def _tell(message: str) -> None:
    """Prints to standard error, so that predictions alone are on standard output."""
    print(message, file=sys.stderr)


if __name__ == "__main__":
    cli.run(main)
