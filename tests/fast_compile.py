"""Compiles four times faster: tests run many small programs, once or twice each."""

import functools

import jax

_OLDER = {"xla_cpu_use_fusion_emitters": False}
"""Known to some versions of XLA only."""


@functools.lru_cache
def options() -> dict:
    """Options of ``jax.jit``."""
    always = {"xla_backend_optimization_level": 0}
    try:
        jax.jit(lambda x: x + 1.0, compiler_options=_OLDER)(1.0)
    except jax.errors.JaxRuntimeError:
        return always
    return always | _OLDER
