"""Writes docs/models.md: every family, what it opens, and how far it is from transformers.

python -m tests.models.page
"""

import dataclasses
import pathlib
import re

import tabulate

from memarc.models.config import BackboneConfig
from memarc.models.families.known import FAMILIES
from memarc.models.methods import METHODS, make_method

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "models.md"
TEXT = """\
# Models

These families of backbones are read from Hugging Face folders (`config.json` and safetensors), by
name of their `model_type`. Decoders write, encoders classify. The command

    python -m tests.models.page

makes this page anew. *Error* is the largest relative distance between our states (and logits) and
those of transformers' torch model, float32, random weights, padded rows that are longer than every
window and every original context; the tests hold it under {tolerance:g}. The models are examples of
what has the family's form; tests open none of them.

{table}

All methods are {methods}.
Every one trains every family but where the table says so: `bitfit` needs biases (which a
config.json may add). Coupling `meft3` of `reversible` is refused where the halves of a layer stand
side by side (`gpt_neox`).

The head of a masked-language model is read of {masked}, where
`head.pooling=mask` asks for it; its table of words must be that of the embeddings.

Of a tuned model that shares one table of biases between layers (`mpnet`) each layer has trained its
own if the method is `full`, so it is not saved as a Hugging Face folder.

Refused by name are: a family that is not here; a key of a config.json that is not known to be
harmless, such as `quantization_config`; values that would make another function, such as rotary
scalings other than `linear` and `llama3`; an output table that a file holds although it is said to
be the word table, and is another one; weights that were infinite as float16.

## Add a family

Write `memarc/models/families/yours.py`: a `FAMILY` of `memarc.models.family.Family`, which maps
keys of the config.json to sizes, states which other keys are harmless and what its layers are
made of (`memarc.models.config.Parts`; `LayerKind` where layers differ), and lists its tensors'
names. Put it into `memarc/models/families/known.py`. The tests run on its `example` by
themselves, and this page gets its line from the command above. If its layers do what no other
family's do, that goes into `memarc/models/layers.py` as one more part.
"""


def written(errors: dict[str, float], tolerance: float) -> str:
    """The page, given each family's largest relative error."""
    rows = [
        {
            "family": f"`{name}`",
            "kind": "decoder" if family.parts.is_decoder else "encoder",
            "such as": ", ".join(family.published),
            "error": f"{errors[name]:.0e}",
            "methods": _methods(name),
        }
        for name, family in FAMILIES.items()
    ]
    table = tabulate.tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)
    methods = ", ".join(f"`{name}`" for name in METHODS)
    masked = ", ".join(f"`{name}`" for name, family in FAMILIES.items() if family.mask_head)
    return TEXT.format(tolerance=tolerance, table=table, methods=methods, masked=masked)


def errors_of(page: str) -> dict[str, float]:
    """The errors that a page states."""
    lines = re.findall(r"^\| `(\S+)` .*\| (\d+e-\d+) +\|", page, re.MULTILINE)
    return {name: float(error) for name, error in lines}


def _methods(name: str) -> str:
    """Which methods tune the family as most of its models are."""
    family = FAMILIES[name]
    config = family.config(family.example, dtype="float32")
    usual = dataclasses.replace(config, parts=family.parts)
    refused = [method for method in METHODS if not _suits(method, usual)]
    return f"all but {', '.join(refused)}" if refused else "all"


def _suits(method: str, config: BackboneConfig) -> bool:
    try:
        make_method(method, {"reduction": 1} if method == "side" else {}, config)
    except ValueError:
        return False
    return True


def main() -> None:
    """Measures all families and writes the page."""
    import tempfile

    from tests.models import test_families as parity

    with tempfile.TemporaryDirectory() as base:
        errors = {
            name: parity.largest_error(*parity.saved(name, pathlib.Path(base))) for name in FAMILIES
        }
    PAGE.write_text(written(errors, parity.TOLERANCE))


if __name__ == "__main__":
    main()
