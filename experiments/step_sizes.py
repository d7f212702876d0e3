"""Flags of the commands that measure training steps of stated sizes."""

import itertools
from collections.abc import Mapping

from absl import flags

from experiments import cli
from memarc.measure.case import Case, parse
from memarc.measure.step import PLAIN
from memarc.privacy import zeroth_order
from memarc.privacy.auto import AUTO, CANDIDATES
from memarc.privacy.engines import check_engine

ENGINE_NAMES = flags.DEFINE_list("engines", ["auto"], "Engines of the clipped sums.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "Rows of a step.")
SEQ_LEN = flags.DEFINE_integer("seq_len", 128, "Tokens of a row.")
SIZES = ("layers", "batch_size", "seq_len")
"""What `sized` may be told."""


def engines() -> list[str]:
    """The engines of --engines, "auto" and the step without privacy among them.

    Raises:
      ValueError: If one is unknown, naming the choices.
    """
    for name in ENGINE_NAMES.value:
        check_engine(name, PLAIN, AUTO, zeroth_order.NAME)
    return ENGINE_NAMES.value


def candidates() -> list[str]:
    """The engines of --engines, "auto" written out."""
    named = [CANDIDATES if name == AUTO else (name,) for name in engines()]
    return list(dict.fromkeys(itertools.chain(*named)))


def sized(label: str, sizes: Mapping[str, int]) -> Case:
    """The step of a method at the sizes of the flags and the config, or others (`SIZES`)."""
    given = {"batch_size": BATCH_SIZE.value, "seq_len": SEQ_LEN.value, "layers": None}
    return parse(cli.config(), label, **given | dict(sizes))
