"""What a run is made of: settings, tokenizer, backbone and model; then rows and a mechanism."""

import dataclasses
from typing import Any

import jax

from memarc.batches import COINS, abstract
from memarc.data.codec import Codec
from memarc.data.load import Splits
from memarc.models.classifier import Classifier, Regressor
from memarc.models.config import BackboneConfig
from memarc.models.language import LanguageModel
from memarc.privacy.mechanism import Mechanism
from memarc.runs.settings import Settings
from memarc.training.sharding import Placement
from memarc.typing import Params


@dataclasses.dataclass(frozen=True)
class Parts:
    """A model that can be trained, or be given trained parameters; no rows were read for it.

    Attributes:
      settings: All choices of the run.
      codec: How texts become tokens, and tokens texts.
      backbone: Sizes of the backbone.
      provenance: Where the backbone's weights come from, as the record says it.
      params: The backbone's weights.
      model: The model around them.
      placement: How arrays lie on a mesh of devices; None on one device.
    """

    settings: Settings
    codec: Codec
    backbone: BackboneConfig
    provenance: str
    params: Params
    model: Classifier | Regressor | LanguageModel
    placement: Placement | None

    @property
    def shapes(self) -> dict[int, Any]:
        """Length T -> an abstract batch of the run, one per bucket."""
        data, rows = self.settings.data, self.settings.privacy.physical_batch_size
        group = () if data.rows_per_unit is None else (data.rows_per_unit,)
        coins = {COINS: jax.ShapeDtypeStruct((rows, 2), "uint32")} if self.model.needs_coins else {}
        return {
            length: {**abstract(self.settings.kind, rows, length, group), **coins}
            for length in data.padded_lengths
        }


@dataclasses.dataclass(frozen=True)
class Run(Parts):
    """All parts of a run; nothing has been trained or written.

    Attributes:
      splits: Tokenized rows.
      mechanism: Sampling, clipping, noise and accounting.
    """

    splits: Splits
    mechanism: Mechanism
