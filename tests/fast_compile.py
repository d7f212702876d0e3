"""How tests compile: fast, as they run many small programs once or twice each; or as runs do.

All programs of a test process compile fast (`flags`), which takes a third of the time. What comes
back bit for bit depends on the compiler's optimisations, so tests of that compile `FULLY`.
"""

import importlib.metadata
import os

_KNOWS_EMITTERS = importlib.metadata.version("jaxlib").startswith("0.10.")
"""Whether XLA has the second option; a process that is given an unknown flag ends at once."""

FAST = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_parallel_codegen_split_count": 1,  # Each worker of pytest has a core of its own.
    "xla_cpu_multi_thread_eigen": False,
} | ({"xla_cpu_use_fusion_emitters": False} if _KNOWS_EMITTERS else {})
"""Options of ``jax.jit``."""

FULLY = {"xla_backend_optimization_level": 3} | (
    {"xla_cpu_use_fusion_emitters": True} if _KNOWS_EMITTERS else {}
)
"""Options of ``jax.jit``: XLA's defaults."""


def options() -> dict:
    """Options of ``jax.jit`` that compile fast."""
    return FAST


def flags(*more: str) -> str:
    """The XLA_FLAGS of a process whose programs compile fast.

    Args:
      *more: Other flags for a process that a test starts; what the environment says stays.
    """
    own = [f"--{name}={str(value).lower()}" for name, value in FAST.items()]
    return " ".join([os.environ.get("XLA_FLAGS", " ".join(own)), *more])
