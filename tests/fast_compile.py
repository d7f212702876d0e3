"""Compiles twice to four times faster: tests run many small programs, once or twice each."""

import importlib.metadata
import os

_LEVEL = {"xla_backend_optimization_level": 0}

_OLDER = {"xla_cpu_use_fusion_emitters": False}
"""Known to some versions of XLA only, which ends a process that is given an unknown flag."""


def options() -> dict:
    """Options of ``jax.jit``."""
    is_known = importlib.metadata.version("jaxlib").startswith("0.10.")
    return _LEVEL | (_OLDER if is_known else {})


def flags(*more: str) -> str:
    """The same for all programs of a process, as its XLA_FLAGS.

    Args:
      *more: Other flags for a process that a test starts; what the environment says stays.
    """
    own = [f"--{name}={str(value).lower()}" for name, value in options().items()]
    return " ".join([os.environ.get("XLA_FLAGS", " ".join(own)), *more])
