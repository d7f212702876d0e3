"""A call that is compiled by itself, so that it rounds alike wherever it stands.

What a compiler fuses together decides how it rounds: it multiplies and adds at once, or leaves out
a rounding to bfloat16 between two operations. So one function, called in two programs or twice in
one, may give two results. Barriers do not help: some devices drop them before they fuse. Nothing is
fused across the border of a loop, though, if the compiler cannot know how often the loop runs.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from memarc.typing import Array, PyTree

ISOLATED_NAME = "isolated_call"
"""Name of the call in a trace, by which `memarc.ops.uses` knows that its loop runs once."""

State = TypeVar("State", bound=PyTree)


def isolated(function: Callable[[State], State], witness: Array, state: State) -> State:
    """Calls a function as the body of a loop that runs once.

    Args:
      function: Maps a tree of arrays to one of the same shapes and dtypes: what a loop does not
        change, a compiler would compute before it. The function may read any arrays beside it.
        It gets no reverse derivative, so the call belongs in a hand-written forward pass.
      witness: Floats that are an argument of the program, such as a weight: the loop's length
        hangs on the first one, or else the compiler would know it. If that is NaN or infinite, the
        loop runs twice.
      state: What the function is called on.

    Returns:
      ``function(state)``.
    """

    def call(witness: Array, state: State) -> State:
        times = jnp.where(witness.ravel()[0] < jnp.inf, 1, 2)

        def body(carry: tuple[Any, State]) -> tuple[Any, State]:
            number, state = carry
            return number + 1, function(state)

        return jax.lax.while_loop(lambda carry: carry[0] < times, body, (0, state))[1]

    call.__name__ = ISOLATED_NAME
    return jax.jit(call)(witness, state)
