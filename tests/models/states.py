"""All states of a backbone, for comparison with those of other implementations."""

import jax.numpy as jnp

from memarc.models import backbone


def every_state(config, params, batch):
    """All states [L + 1, B, T, D] of a batch, the embeddings first."""
    hidden, mask = backbone.embed(config, params, batch), backbone.token_mask(batch)
    layers = backbone.layers_of(config, params)
    _, states = backbone.read_states(config, layers, hidden, mask, lambda _, state: state, ())
    return jnp.concatenate([hidden[None], states])
