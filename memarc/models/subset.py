"""Methods that train a subset of the backbone's own parameters: all, the biases, or the last ones.

``bitfit`` is DP-BiTFiT (Bu et al. 2022, arXiv:2210.00036): biases of dense maps and norms.
"""

import dataclasses

from memarc.models import backbone, partition
from memarc.models.config import BackboneConfig
from memarc.models.tuning import Tuning, of_parameters


@dataclasses.dataclass(frozen=True)
class SubsetOptions:
    """These methods have no options."""


def full(config: BackboneConfig, options: SubsetOptions) -> Tuning:
    """Trains every parameter of the backbone."""
    del options
    return _subset(config, lambda path: True)


def bitfit(config: BackboneConfig, options: SubsetOptions) -> Tuning:
    """Trains the biases of all dense maps and norms.

    Raises:
      ValueError: If the backbone has none.
    """
    del options
    if not config.parts.has_biases:
        raise ValueError(f"Method 'bitfit' trains biases; a {config.kind} backbone has none.")
    return _subset(config, lambda path: path[-1] == "bias")


def head(config: BackboneConfig, options: SubsetOptions) -> Tuning:
    """Trains no layer; the states are computed outside differentiation.

    Of a decoder, the last norm and its own output table are trained (a tied one is the word table,
    and stays frozen); an encoder has neither.
    """
    del options
    return dataclasses.replace(
        _subset(config, lambda path: path[0] == "final"),
        states=lambda trainable, frozen, batch: batch["states"],
        precompute=lambda frozen, batch: {
            **batch,
            "states": backbone.encode(config, frozen, batch),
        },
    )


def _subset(config, chosen) -> Tuning:
    """Trains the parameters whose path is chosen."""
    return of_parameters(
        config, init=lambda key, params: partition.split(params, chosen), parameters=partition.join
    )
