"""The shapes of a backbone's parameters, traced once for each of its configs."""

import functools

import jax

from memarc.models import backbone
from memarc.models.config import BackboneConfig
from memarc.typing import Params


@functools.lru_cache
def shapes_of(config: BackboneConfig) -> Params:
    """The tree that ``backbone.init`` gives, of shapes and dtypes alone."""
    return jax.eval_shape(lambda: backbone.init(config, jax.random.key(0)))
