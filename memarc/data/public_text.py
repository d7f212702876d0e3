"""Plain sentences, public, that show a network what real rows look like before it has seen one."""

import json
from collections.abc import Sequence

import numpy as np

from memarc.batches import GENERATION, LABEL_DTYPES
from memarc.data.codec import Codec
from memarc.data.rows import Rows

SENTENCES = (
    ("The committee met on Tuesday to discuss the budget for 2019.", "It was postponed by a week."),
    ("Dr. Ada Moreno, a chemist from Leeds, won the prize twice.", "She teaches there now."),
    ("Is this the cheapest hotel near the station?", "No, there is one at $45 a night."),
    ("Water boils at 100 degrees; on a mountain, it boils sooner.", "Air is thinner up there."),
)
"""Pairs of texts: what is read, and what could be written after it."""


SHORT = (("Who?", "Ann."), ("When?", "Now."), ("Where?", "Here."), ("Is it?", "No."))
"""Pairs that tight caps on lengths leave whole."""


def rows(codec: Codec, pairs: Sequence[tuple[str, str]], labels: Sequence[float] = ()) -> Rows:
    """Pairs of texts as rows of a codec's kind of task.

    Args:
      codec: A template's columns all hold what is read.
      pairs: `SENTENCES` or `SHORT`.
      labels: Of each pair, where the kind has labels; () makes all 0.
    """
    read, written = map(list, zip(*pairs, strict=True))
    if codec.kind != GENERATION:
        columns = 1 + max((x for x in codec.pieces if isinstance(x, int)), default=0)
        given = labels or [0.0] * len(pairs)
        return Rows((read,) * columns, labels=np.asarray(given, LABEL_DTYPES[codec.kind]))
    if codec.is_chat:
        read = [json.dumps([{"role": "user", "content": text}]) for text in read]
    return Rows((read, written), labels=None)


def batch(codec: Codec, longest: int) -> dict[str, np.ndarray]:
    """Encodes the sentences as rows of a run are: with the tokens that begin and part texts.

    Args:
      codec: The run's; its caps cut the rows.
      longest: Most tokens of a row.

    Returns:
      A batch of `memarc.batches` of the codec's kind, one row a pair; all labels are 0.
    """
    dataset = codec.dataset(rows(codec, SENTENCES))
    whole = dataset.take(np.arange(len(dataset)), int(dataset.lengths.max()))
    return {key: x[:, :longest] if x.ndim == 2 else x for key, x in whole.items()}
