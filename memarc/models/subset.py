"""Methods that train a subset of the backbone's own parameters: all, the biases, or none.

``bitfit`` is DP-BiTFiT (Bu et al. 2022, arXiv:2210.00036): biases of dense maps and norms.
"""

import dataclasses

from memarc.models import backbone, partition
from memarc.models.config import BackboneConfig
from memarc.models.tuning import Tuning


@dataclasses.dataclass(frozen=True)
class SubsetOptions:
    """These methods have no options."""


def full(config: BackboneConfig, options: SubsetOptions) -> Tuning:
    """Trains every parameter of the backbone."""
    del options
    return _subset(config, lambda path: True)


def bitfit(config: BackboneConfig, options: SubsetOptions) -> Tuning:
    """Trains the biases of all dense maps and norms."""
    del options
    return _subset(config, lambda path: path[-1] == "bias")


def head(config: BackboneConfig, options: SubsetOptions) -> Tuning:
    """Trains nothing of the backbone; its states are computed outside differentiation."""
    del options
    return Tuning(
        init=lambda key, params: ({}, params),
        states=lambda trainable, frozen, batch: batch["states"],
        precompute=lambda frozen, batch: {
            **batch,
            "states": backbone.encode(config, frozen, batch),
        },
    )


def _subset(config, chosen) -> Tuning:
    """Trains the parameters whose path is chosen."""
    return Tuning(
        init=lambda key, params: partition.split(params, chosen),
        states=lambda trainable, frozen, batch: backbone.encode(
            config, partition.join(trainable, frozen), batch
        ),
        precompute=lambda frozen, batch: batch,
    )
