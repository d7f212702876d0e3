"""What every peer reads and writes; needs nothing of memarc."""

import dataclasses
import json
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Job:
    """A case to compute (`benchmarks.files` writes it).

    Attributes:
      folder: Where its files are.
      method: "full" or "lora".
      remat: "none", or "layer": activations of a layer are computed again going back.
      kind: "classification" or "generation".
      dtype: Compute dtype, "float32" or "bfloat16"; what is trained is float32 in any case.
      scale: What a low-rank update is multiplied by.
      rank: Its rank.
      clip_norm: The bound on the norm of a row's gradient.
      noise_multiplier: Standard deviation of the noise over that bound.
      learning_rate: Of AdamW, without weight decay.
      rows: Rows of the batch.
      tokens: Tokens of a row.
      workload: A name of `benchmarks.workloads.WORKLOADS`.
      label: The method as the command line writes it.
      is_small: Whether sizes are those of the check.
      is_check: Whether the clipped sum is wanted, in float32, rather than times.
    """

    folder: Path
    method: str
    remat: str
    kind: str
    dtype: str
    scale: float | None
    rank: int | None
    clip_norm: float
    noise_multiplier: float
    learning_rate: float
    rows: int
    tokens: int
    workload: str
    label: str
    is_small: bool
    is_check: bool


@dataclasses.dataclass(frozen=True)
class Ask:
    """How a peer is to compute a job.

    Attributes:
      engine: How clipped sums are computed, where the peer has a choice; "" otherwise.
      microbatch_size: Rows at once, where the peer can cut a batch.
    """

    engine: str
    microbatch_size: int


def read(folder: Path) -> Job:
    """Reads a folder's job."""
    return Job(folder, **json.loads((folder / "job.json").read_text(encoding="utf-8")))
